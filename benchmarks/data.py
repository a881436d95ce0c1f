"""Measure how fast a worker loads training samples of each data set, and the time of each function.

    python benchmarks/data.py --out benchmarks/data.md

Every data set is the procedural world in the layout and stored size of the set. One process, one thread, CPU time.
Files were just written, so that no disk access is measured.
"""

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from environment_info import output_path, publish
from tqdm import tqdm

from procedural_scenes.fixture_clips import world_clips
from streamvggt.datasets import get_module, training_set
from streamvggt.datasets.spring import Spring
from streamvggt.flags import whole

STORED = {  # width, height
    "co3d": (512, 512),
    "wildrgbd": (512, 384),
    "arkitscenes": (640, 480),
    "arkitscenes_highres": (640, 480),
    "scannetpp": (920, 690),
    "scannet": (640, 480),
    "hypersim": (1024, 768),
    "blendedmvs": (512, 384),
    "megadepth": (800, 600),
    "waymo": (512, 341),
    "virtual_kitti2": (1242, 375),
    "omniobject3d": (800, 800),
    "spring": (960, 540),
    "mvs_synth": (1280, 720),
    "point_odyssey": (960, 540),
}
SIZE, NUM_VIEWS, NUM_FRAMES = (518, 392), 10, 12
PARTS = {  # part of the time: file and name of the function
    "decode color": [("decode.py", "read_image")],
    "decode depth, masks": [("decode.py", name) for name in ("read_png16", "read_mask", "read_exr", "read_npy")],
    "decode cameras, lists": [("decode.py", name) for name in ("read_npz", "read_json", "open_hdf5")],
    "resize": [("transforms.py", "resize")],
    "jitter": [("transforms.py", "__call__")],
}


def measure(root: Path, name: str, num_samples: int) -> str:
    """Return a row of the table."""
    dataset = training_set(reader=name, data_root=root, max_views=NUM_VIEWS, crop_augmentation_px=16, jitter=True)

    def load(number: int) -> None:
        dataset.sample(number % len(dataset), NUM_VIEWS, SIZE, np.random.default_rng(number))

    load(0)  # imports and indices
    began = time.process_time()
    for number in range(num_samples):
        load(number)
    seconds = (time.process_time() - began) / num_samples
    profile = cProfile.Profile(time.process_time)
    profile.runcall(lambda: [load(number) for number in range(num_samples)])
    stats = pstats.Stats(profile)
    shares = [share(stats, functions) / stats.total_tt for functions in PARTS.values()]
    width, height = STORED[name]
    cells = [f"{value:.0%}" for value in [*shares, 1 - sum(shares)]]
    return f"| `{name}` | {width}×{height} | {1 / seconds:.1f} | {seconds * 1000:.0f} ms | " + " | ".join(cells) + " |"


def share(stats: pstats.Stats, functions: list[tuple[str, str]]) -> float:
    """Return the seconds spent in some functions, including the functions they call."""
    return sum(
        cumulative
        for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items()
        if (Path(file).name, function) in functions
    )


def startup(root: Path, num_scenes: int = 200, num_frames: int = 500) -> list[str]:
    """Return the seconds to open a reader of many frames, for the first time and again."""
    for scene in tqdm(range(num_scenes), "files", leave=False):
        folder = root / Spring.folder / f"{scene:04d}/rgb"
        folder.mkdir(parents=True)
        for frame in range(num_frames):
            (folder / f"{frame:04d}.png").touch()
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        Spring(root / Spring.folder)
        seconds.append(time.perf_counter() - began)
    return [
        "",
        f"Opening a source of {num_scenes * num_frames:,} frames in {num_scenes} folders: {seconds[0]:.2f} s for the "
        f"first time, {seconds[1]:.2f} s from the cached index.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=whole(), default=4, help="of each data set (default: 4)")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows, clips = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["STREAMVGGT_CACHE"] = str(root / "cache")
        for name in tqdm(sorted(STORED, key=STORED.get), "data sets", dynamic_ncols=True):
            width, height = STORED[name]
            if (width, height) not in clips:
                clips = {(width, height): world_clips(1, NUM_FRAMES, height, width)}
            get_module(name).write(root, clips[width, height])
            rows[name] = measure(root, name, arguments.samples)
        opened = startup(root / "many")
    report = [
        "# Loading training data",
        "",
        f"Samples of {NUM_VIEWS} views at {SIZE[0]}×{SIZE[1]} with random zoom and colors, per second of CPU time of "
        "one worker, and the fraction of the time of each step. The rest is crops, conversions and checks. Resizing "
        "(Pillow's Lanczos and bicubic, as published) takes the largest fraction. A pixel of a PNG (`hypersim`, "
        "`omniobject3d`, `spring`, `mvs_synth`) takes two to three times as long to decode as a pixel of a JPEG.",
        "",
        "| set | stored | samples/s | a sample | " + " | ".join(PARTS) + " | rest |",
        "|---|---|---|---|" + "---|" * (len(PARTS) + 1),
        *(rows[name] for name in STORED),
        *opened,
        "",
        "The images are of the procedural world, in the layouts and sizes of the sets. Real images have more detail "
        "and decode more slowly. The files were written just before, so reading them does not wait for a disk.",
    ]
    publish(report, arguments.out, torch.device("cpu"))


if __name__ == "__main__":
    main()
