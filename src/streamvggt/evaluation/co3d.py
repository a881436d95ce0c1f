"""Relative camera poses on CO3Dv2: ten random frames of each sequence, AUC over all pairs.

    <folder>/<category>/<sequence>.npz   poses said and true, of the drawn frames
    <folder>/results.json                AUC of each category, their mean, and which categories are missing

S frames.
"""

from __future__ import annotations

import argparse
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from streamvggt.datasets._co3d_download import cameras_of
from streamvggt.datasets.co3d_annotations import CATEGORIES, Frame, has_far_camera, read_annotations
from streamvggt.evaluation.network import Evaluated, add_network_arguments, weights_name
from streamvggt.evaluation.pose_metrics import accuracy, auc, relative_pose_errors
from streamvggt.evaluation.processes import Processes
from streamvggt.evaluation.record import open_run, write_json, write_scores
from streamvggt.evaluation.work import Outcome, load_prediction, save_arrays, work_through
from streamvggt.flags import some_path, whole
from streamvggt.image_files import open_image, upright_rgb
from streamvggt.stream.frames import load_frames

THRESHOLDS = (30, 15, 5, 3)
SQUARE_SIZE = 224
BOLD, BLUE, PLAIN = "\033[1m", "\033[94m", "\033[0m"


@dataclass(frozen=True)
class Draw:
    """Frames of a sequence in the order in which the network sees them.

    ids: positions in the sequence's annotations.
    """

    category: str
    sequence: str
    ids: tuple[int, ...]
    frames: list[Frame]

    @property
    def name(self) -> str:
        return f"{self.category}/{self.sequence}"


def draw_frames(
    annotations: Mapping[str, Mapping[str, list[Frame]]],
    *,
    seed: int,
    num_frames: int = 10,
    min_num_images: int = 50,
    fast: bool = False,
    per_sequence: bool = False,
) -> list[Draw]:
    """The frames to evaluate on, as published: all draws come from one generator, one sequence after the other.

    So a draw depends on all sequences before it: other categories, other frames.

    Args:
        annotations: category → sequence → frames, in the order of the published categories.
        min_num_images: sequences with fewer are left out, and draw nothing.
        fast: of each category, ten random sequences at most.
        per_sequence: draws of a generator of each sequence's own, which do not depend on what else is evaluated.
    """
    sequences, frames = random.Random(seed), np.random.RandomState(seed)
    draws = []
    for category, there in annotations.items():
        names = sorted(there)
        if fast and len(names) >= 10:
            names = sorted(sequences.sample(names, 10))
        for name in names:
            count = len(there[name])
            if count < max(min_num_images, num_frames) or has_far_camera(there[name]):
                continue
            if per_sequence:
                frames = np.random.RandomState((seed + zlib.crc32(f"{category}/{name}".encode())) % (1 << 32))
            ids = tuple(frames.choice(count, num_frames, replace=False).tolist())
            draws.append(Draw(category, name, ids, [there[name][index] for index in ids]))
    return draws


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status is 1 if a category or a sequence is missing in the end."""
    with Processes() as processes:
        return evaluate(parse(argv), processes)


def evaluate(arguments: argparse.Namespace, processes: Processes) -> int:
    outcome = Outcome(processes)
    annotations, missing = read_all(arguments, outcome)
    if not annotations:
        raise FileNotFoundError(
            f"{arguments.co3d_anno_dir} has no annotations (<category>_test.jgz) of {missing[0]} or any other category "
            "asked for: make them with `streamvggt data prepare co3d_annotations`, see docs/evaluation.md"
        )
    if not arguments.co3d_dir.is_dir():
        raise FileNotFoundError(f"CO3Dv2's images are missing: there is no folder {arguments.co3d_dir}")
    draws = draw_frames(
        annotations,
        seed=arguments.seed,
        num_frames=arguments.num_frames,
        min_num_images=arguments.min_num_images,
        fast=arguments.fast_eval,
        per_sequence=arguments.draw == "per_sequence",
    )
    if not draws:
        raise ValueError(f"no sequence has {arguments.min_num_images} images (--min_num_images)")
    if processes.is_main:
        if missing:
            outcome.note(f"{len(missing)} categories", f"there are no annotations of {', '.join(missing)}")
        for draw in draws:
            if not cameras_of(draw.frames).isfinite().all():
                outcome.note(draw.name, "a true camera is not finite; its pairs count as wrong")
    folder = output_folder(arguments)
    network = load_network(arguments)
    predict(draws, network, arguments, folder, processes, outcome)
    processes.wait()
    if processes.is_main:
        report(draws, missing, arguments, folder, outcome)
    return outcome.finish()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = parser.add_argument_group("data")
    data.add_argument("--co3d_dir", type=some_path, required=True, help="the images: <category>/<sequence>/images")
    data.add_argument("--co3d_anno_dir", type=some_path, required=True, help="the prepared <category>_test.jgz")
    data.add_argument("--category", nargs="+", choices=CATEGORIES, metavar="NAME", help="only these (default: all 41)")
    data.add_argument(
        "--debug", action="store_true", help="only apple, and of it only sequences whose images are there"
    )
    frames = parser.add_argument_group("frames")
    frames.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    frames.add_argument("--num_frames", type=whole(), default=10, help="of a sequence (default: 10)")
    frames.add_argument("--min_num_images", type=whole(), default=50, help="leave out shorter sequences (default: 50)")
    frames.add_argument("--fast_eval", action="store_true", help="ten random sequences of a category")
    frames.add_argument(
        "--draw",
        choices=("published", "per_sequence"),
        default="published",
        help="one generator for all, or one for each sequence: the same frames whatever else is evaluated",
    )
    frames.add_argument(
        "--image_loader",
        choices=("crop", "square"),
        default="crop",
        help="crop: width --size, height cut to it (default); square: 224×224, squeezed, as the published program does",
    )
    adjustment = parser.add_argument_group("bundle adjustment")
    adjustment.add_argument("--use_ba", action="store_true", help="refine the network's poses")
    adjustment.add_argument(
        "--tracks", choices=("auto", "head", "lightglue", "sift"), default="auto", help="points to refine them with"
    )
    parser.add_argument(
        "--output_dir",
        type=some_path,
        help="default: ../eval_results/co3d/<model>_<weights> and what differs from defaults",
    )
    add_network_arguments(parser)
    arguments = parser.parse_args(argv)
    if arguments.num_frames < 2:
        raise ValueError(f"--num_frames {arguments.num_frames}: a pair needs two")
    return arguments


def read_all(arguments: argparse.Namespace, outcome: Outcome) -> tuple[dict[str, dict[str, list[Frame]]], list[str]]:
    """Annotations by category, and the categories that have none."""
    wanted = ["apple"] if arguments.debug else arguments.category or CATEGORIES
    annotations, missing = {}, []
    for category in CATEGORIES:
        if category not in wanted:
            continue
        found = None
        with outcome.of(category, everywhere=True):
            found = read_annotations(arguments.co3d_anno_dir, category)
        if found is None:
            missing.append(category)
            continue
        if arguments.debug:
            found = {name: frames for name, frames in found.items() if (arguments.co3d_dir / category / name).is_dir()}
        annotations[category] = found
    return annotations, missing


def output_folder(arguments: argparse.Namespace) -> Path:
    if arguments.output_dir:
        return arguments.output_dir
    parts = [arguments.model_name, weights_name(arguments)]
    parts += [name for name in ("debug", "fast_eval", "use_ba") if getattr(arguments, name)]
    parts += ["square"] if arguments.image_loader == "square" else []
    return Path("../eval_results/co3d") / "_".join(parts)


def load_network(arguments: argparse.Namespace) -> Evaluated:
    """The network with the heads that poses and, if asked for, bundle adjustment need."""
    if not arguments.use_ba:
        return Evaluated.load(arguments, heads=("camera",))
    heads = ("camera", "depth")
    if arguments.tracks in ("auto", "head"):
        try:
            return replace(Evaluated.load(arguments, heads=(*heads, "track")), heads=heads)
        except ValueError:
            if arguments.tracks == "head":
                raise
    return Evaluated.load(arguments, heads=heads)


def predict(
    draws: Sequence[Draw],
    network: Evaluated,
    arguments: argparse.Namespace,
    folder: Path,
    processes: Processes,
    outcome: Outcome,
) -> None:
    size = arguments.size
    if size is None:
        size = SQUARE_SIZE if arguments.image_loader == "square" else network.size
    settings = {
        "image_loader": arguments.image_loader,
        "size": size,
        "seed": arguments.seed,
        "draw": arguments.draw,
        "num_frames": arguments.num_frames,
        "min_num_images": arguments.min_num_images,
        "fast_eval": arguments.fast_eval,
        "debug": arguments.debug,
        "categories": arguments.category,
        "use_ba": arguments.use_ba,
        "tracks": arguments.tracks if arguments.use_ba else None,
        # Annotations that came or went since would have changed the draws.
        "draws": f"{len(draws)} sequences, {zlib.crc32(repr([(draw.name, draw.ids) for draw in draws]).encode()):08x}",
    }
    open_run(
        folder,
        protocol="co3d",
        dataset="co3d",
        settings={**network.settings, **settings},
        about=network.about,
        processes=processes,
    )
    refine = Refinement(network, arguments.tracks) if arguments.use_ba else None
    by_name = {draw.name: draw for draw in draws}

    def make(name: str) -> None:
        draw = by_name[name]
        paths = [arguments.co3d_dir / frame["filepath"] for frame in draw.frames]
        images = load_images(paths, arguments.image_loader, size, network.model.patch_size)
        said = network.predict_sequence(images)
        cameras = said.cameras()
        arrays = {"cam_from_world": cameras.cam_from_world[0].float().numpy()}
        if refine is not None:
            arrays |= refine(images, said)
        save_arrays(
            folder / f"{name}.npz",
            intrinsics=cameras.intrinsics[0].float().numpy(),
            true_cam_from_world=cameras_of(draw.frames).numpy(),
            ids=np.array(draw.ids),
            files=np.array([frame["filepath"] for frame in draw.frames]),
            **arrays,
        )

    work_through({name: [folder / f"{name}.npz"] for name in by_name}, make, processes, outcome, title="CO3Dv2")


class Refinement:
    """Bundle adjustment of a sequence's poses; where it cannot help, the network's are kept."""

    def __init__(self, network: Evaluated, tracks: str):
        """
        Raises:
            ValueError: there are no such tracks.
        """
        # Not at the top: without the flag nothing needs pycolmap.
        from streamvggt.evaluation.tracks import choose_provider

        self._provider = choose_provider(tracks, network.model)

    def __call__(self, images: Tensor, said) -> dict[str, np.ndarray]:
        """Poses that count, (S, 3, 4), and why they are not refined ("" if they are)."""
        from streamvggt.evaluation.bundle_adjustment import adjust

        cameras = said.cameras()
        first = type(cameras)(cameras.cam_from_world[0], cameras.intrinsics[0])
        try:
            tracks = self._provider(images, first)
            poses = adjust(first, tracks, tuple(images.shape[-2:]), said.depth[0, ..., 0].float())
            return {"refined_cam_from_world": poses.numpy(), "not_refined": np.array("")}
        except Exception as reason:  # whatever a solver or matcher raises: a sequence must not end the evaluation
            kept = first.cam_from_world.double().numpy()
            return {"refined_cam_from_world": kept, "not_refined": np.array(str(reason) or type(reason).__name__)}


def load_images(paths: Sequence[Path], loader: str, size: int, patch_size: int) -> Tensor:
    """RGB in [0, 1], all of one size. (S, 3, H, W)

    Raises:
        FileNotFoundError, ValueError: one is missing or damaged.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} images are missing, the first is {missing[0]}")
    if loader == "crop":
        frames = load_frames(paths, size=size, patch_size=patch_size, mode="crop", strict=True)
        return torch.stack([frame.image for frame in frames])
    pixels = []
    for path in paths:
        with open_image(path) as file:
            squeezed = upright_rgb(file).resize((size, size), Image.Resampling.BICUBIC)
        pixels.append(torch.from_numpy(np.array(squeezed)).movedim(-1, 0).float() / 255)
    return torch.stack(pixels)


@dataclass(frozen=True)
class PairErrors:
    """Angles in degrees between relative poses said and true, of all pairs of a sequence's frames. (M,) each"""

    rotation: Tensor
    translation: Tensor


Scores = dict[str, dict[str, PairErrors]]
"""Category → sequence → errors."""


def score(draws: Sequence[Draw], folder: Path, outcome: Outcome, which: str = "cam_from_world") -> Scores:
    """Errors of all sequences that have a prediction; the others are noted.

    Args:
        which: of the poses in the predictions.
    """
    scores: Scores = {}
    for draw in draws:
        with outcome.of(draw.name):
            poses = torch.from_numpy(load_prediction(folder / f"{draw.name}.npz")[which])
            errors = PairErrors(*relative_pose_errors(poses, cameras_of(draw.frames)))
            scores.setdefault(draw.category, {})[draw.sequence] = errors
    return scores


def areas(sequences: Iterable[PairErrors]) -> dict[str, float]:
    """AUC at each threshold, of all pairs of some sequences."""
    errors = torch.cat([torch.maximum(one.rotation, one.translation) for one in sequences])
    return {f"AUC@{threshold}": auc(errors, threshold) for threshold in THRESHOLDS}


def mean_areas(by_category: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([numbers[name] for numbers in by_category.values()])) for name in areas_names()}


def report(
    draws: Sequence[Draw], missing: Sequence[str], arguments: argparse.Namespace, folder: Path, outcome: Outcome
) -> None:
    """Print the published summary and keep it as JSON."""
    scores = score(draws, folder, outcome, "refined_cam_from_world" if arguments.use_ba else "cam_from_world")
    if not scores:
        return
    by_category, by_sequence = {}, {}
    for category, sequences in scores.items():
        for name, errors in sequences.items():
            numbers = {"R_ACC@5": accuracy(errors.rotation, 5), "T_ACC@5": accuracy(errors.translation, 5)}
            print(f"{category} sequence {name} R_ACC@5: {numbers['R_ACC@5']:.4f}  T_ACC@5: {numbers['T_ACC@5']:.4f}")
            by_sequence[f"{category}/{name}"] = numbers | areas([errors])
        by_category[category] = areas(sequences.values())
        print("-" * 50)
        print(f"{BOLD}{BLUE}AUC of {category}:{PLAIN} {_areas_text(by_category[category])}")
        print("-" * 50)
    mean = mean_areas(by_category)
    print("\nSummary of AUC results:")
    print("-" * 50)
    for category in sorted(by_category):
        print(f"{category:<15}: {_areas_text(by_category[category])}")
    print("-" * 50)
    print(f"Mean AUC: {_areas_text(mean)}")
    if missing:
        print(f"The mean is of {len(by_category)} categories; without annotations: {', '.join(missing)}")
    about = {"num_categories": len(by_category), "missing_categories": list(missing)}
    if arguments.use_ba:
        before = score(draws, folder, outcome)
        without = mean_areas({category: areas(sequences.values()) for category, sequences in before.items()})
        about["without_bundle_adjustment"] = without
        about["bundle_adjustment"] = tell_refinement(draws, folder, without, outcome)
    write_json(folder / "results.json", {"mean": mean, "categories": by_category, "sequences": by_sequence, **about})
    write_scores(folder, "AUC", mean, by_sequence, categories=by_category, data=arguments.co3d_dir, **about)
    print(f"→ {folder / 'results.json'}")


def tell_refinement(
    draws: Sequence[Draw], folder: Path, without: Mapping[str, float], outcome: Outcome
) -> dict[str, Any]:
    """Print how many sequences bundle adjustment refined, and why others keep the network's poses; answer the same."""
    reasons: Counter[str] = Counter()
    for draw in draws:
        with outcome.of(draw.name):
            reasons[str(load_prediction(folder / f"{draw.name}.npz")["not_refined"])] += 1
    num_refined = reasons.pop("", 0)
    print(f"Without bundle adjustment: {_areas_text(without)}")
    print(f"Bundle adjustment refined {num_refined} of {num_refined + reasons.total()} sequences.")
    if reasons:
        print(f"!!! {reasons.total()} keep the network's poses, most of them because:")
        for reason, count in reasons.most_common(5):
            print(f"!!!   {count} × {reason}")
    return {"refined": num_refined, "kept": reasons.total(), "reasons": dict(reasons)}


def areas_names() -> list[str]:
    return [f"AUC@{threshold}" for threshold in THRESHOLDS]


def _areas_text(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{numbers[name]:.4f} ({name})" for name in areas_names())
