"""Draw training batches and measure their loading time."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image
from tqdm import tqdm

from streamvggt.bundled import bundled
from streamvggt.data.dataset import Sample
from streamvggt.data.mixture import Mixture
from streamvggt.data.transforms import image_array
from streamvggt.data.view import Batch, View
from streamvggt.data.visualization import depth_figure, image_grid


def run(arguments: argparse.Namespace) -> int:
    data = training_data(arguments.config, arguments.overrides, config_folder(arguments.config_dir))
    rows, seconds = [], defaultdict(list)
    if isinstance(data, Mixture):
        print(data.describe())
        numbers = range(arguments.batches) if arguments.batches else batches_with_all_sets(data, arguments.samples)
        for number in tqdm(numbers, "loading", unit="batch", dynamic_ncols=True):
            for name, sample in data.batch(number):
                seconds[name].append(sample.seconds)
                rows.append((sample_title(name, sample), sample_images(sample.views)))
    else:
        for number in tqdm(range(arguments.batches or 4), "loading", unit="batch", dynamic_ncols=True):
            began = time.perf_counter()
            batch = data[number]
            seconds["batch"].append(time.perf_counter() - began)
            rows.append(
                (f"batch {number}, the first of {batch.num_sequences} sequences", sample_images(get_views(batch)))
            )
    print("to load a sample:" if isinstance(data, Mixture) else "to load:")
    for name, values in sorted(seconds.items(), key=lambda item: -mean(item[1])):
        print(f"  {name}: {mean(values) * 1000:.0f} ms, mean of {len(values)}")
    if isinstance(data, Mixture) and (replaced := {name: n for name, n in data.num_replaced().items() if n}):
        print("REPLACED because they were bad: " + ", ".join(f"{count} of {name}" for name, count in replaced.items()))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_grid(rows, height=200)).save(arguments.out)
    print(f"{arguments.out}: the views of each sample, and below them their depth")
    return 0


def training_data(name: str, overrides: list[str], folder: Path):
    """Load the training data of a configuration."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf.errors import OmegaConfBaseException

    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ValueError(f"no configuration {name!r} in {folder}; choose from {known}")
    try:
        with initialize_config_dir(str(folder.absolute()), version_base=None):
            return instantiate(compose(name, overrides).data.train, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__
        raise cause if isinstance(cause, OSError | ValueError) else ValueError(str(error)) from error


def config_folder(chosen: Path | None) -> Path:
    candidates = [chosen] if chosen else [Path("config"), Path("../config"), bundled("config")]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"no folder {' or '.join(map(str, candidates))}: run this in the project, or set --config-dir"
    )


def batches_with_all_sets(data: Mixture, samples: int) -> list[int]:
    """Return the first batches of the first epoch that contain `samples` samples of every data set."""
    plan = data.plan(0).datasets[: data.num_batches * data.batch_size]
    places = [np.flatnonzero(plan == number)[:samples] for number in range(len(data.datasets))]
    return sorted({int(place) // data.batch_size for some in places for place in some})


def sample_title(name: str, sample: Sample) -> str:
    kind = "video" if sample.is_video else "collection"
    height, width = sample.views[0].depth.shape
    frames = ", ".join(sample.frames[:3]) + (", …" if len(sample.frames) > 3 else "")
    return f"{name}   {width} x {height}   {kind}   {sample.seconds * 1000:.0f} ms   {sample.scene}   {frames}"


def sample_images(views: list[View]) -> list[np.ndarray]:
    return [np.concatenate([image_array(view.image), depth_figure(view)]) for view in views]


def get_views(batch: Batch) -> list[View]:
    """Return the views of the first sequence of a batch."""
    return [batch.to("cpu").view(0, frame) for frame in range(batch.num_frames)]
