"""Evaluate depth and cameras on custom scenes with ground truth (docs/own-data.md).

    python -m streamvggt.evaluation.own scans/ --weights ../results/train/own/final --max_frames 100

Each scene is one sequence, processed by the protocols of video depth (one scale per sequence) and of trajectories (one
similarity per sequence). Images are cropped around the principal point and resized as in training. Depth is compared at
that size.

S frames · H×W pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from streamvggt.data.own.frame import Frame, read_frame
from streamvggt.data.own.scene import get_labels, read_scene, scenes_under
from streamvggt.data.transforms import crop_and_resize, whole_patches
from streamvggt.data.view import View
from streamvggt.evaluation.arguments import own_parser
from streamvggt.evaluation.depth_alignment import ALIGNMENTS
from streamvggt.evaluation.depth_metrics import score_depth
from streamvggt.evaluation.jobs import FailureLog, run_main
from streamvggt.evaluation.pose_metrics import auc, relative_pose_errors, trajectory_errors
from streamvggt.evaluation.processes import ProcessGroup
from streamvggt.evaluation.run_metadata import write_json
from streamvggt.evaluation.runner import ModelRunner

COLUMNS = ("Abs Rel", "δ < 1.25", "ATE", "RPE trans", "RPE rot", "AUC@30")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and write the numbers. The exit status is 1 if a scene could not be evaluated."""
    arguments = own_parser().parse_args(argv)
    outcome = FailureLog(ProcessGroup())
    scenes = scenes_under(arguments.path)
    network = ModelRunner.load(arguments, heads=("camera", "depth"))
    numbers = {}
    for name, path in scenes.items():
        with outcome.guard(name):
            frames = read_scene(path, arguments.depth_unit)[:: arguments.stride][: arguments.max_frames]
            numbers[name] = evaluate(network, frames, path, arguments.align)
    if numbers:
        means = mean_numbers(numbers.values())
        settings = {**network.settings, "align": arguments.align, "stride": arguments.stride}
        settings["max_frames"] = arguments.max_frames
        content = {"settings": settings, "about": network.metadata, "mean": means, "scenes": numbers}
        write_json(arguments.json, content)
        print(table({**numbers, f"mean of {len(numbers)}": means}))
    return outcome.finish()


def evaluate(network: ModelRunner, frames: Sequence[Frame], path: Path, align: str) -> dict[str, float]:
    """Compute the metrics of one scene by the names of `COLUMNS`, without depth metrics if the scene has no depth.

    Raises:
        ValueError: If the scene has no cameras, fewer than two frames, or nothing to compare with.
    """
    labels = get_labels(tuple(frames))
    if "cameras" not in labels:
        raise ValueError(f"{path}: expected cameras to compare with, got images only. Add poses (docs/own-data.md).")
    if len(frames) < 2:
        raise ValueError(f"{path}: expected at least 2 frames, got {len(frames)}.")
    views: list[View] = []
    prediction = network.predict_sequence(_images(frames, network, views))
    truth = torch.stack([view.cam_from_world for view in views]).double()
    poses = prediction.cameras().cam_from_world[0].double()
    errors = trajectory_errors(poses, truth)
    numbers = {"ATE": errors.ate, "RPE trans": errors.rpe_translation, "RPE rot": errors.rpe_rotation}
    numbers["AUC@30"] = auc(torch.maximum(*relative_pose_errors(poses, truth)), 30)
    if "depth" in labels:
        depth = torch.stack([view.depth for view in views])
        score = score_depth(prediction.depth[0, ..., 0].float(), depth, ALIGNMENTS[align])
        if not score.num_valid:
            raise ValueError(f"{path}: expected depth above 0, got none in {len(views)} frames.")
        numbers |= {name: score.numbers[name] for name in ("Abs Rel", "δ < 1.25")}
    return numbers


def mean_numbers(numbers: Collection[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each column over the scenes that have the column."""
    columns = {name: [one[name] for one in numbers if name in one] for name in COLUMNS}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Format a Markdown table with one row per scene."""
    lines = ["| scene | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, numbers in rows.items():
        values = (f"{numbers[column]:.4f}" if column in numbers else "–" for column in COLUMNS)
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _images(frames: Sequence[Frame], network: ModelRunner, views: list[View]) -> Iterator[Tensor]:
    """Yield images of the size of the first one and append their views to `views`. (3, H, W) each"""
    size = None
    for frame in frames:
        view = read_frame(frame)
        if size is None:
            height, width = view.depth.shape
            scale = network.size / max(width, height)
            size = tuple(whole_patches(side * scale, network.model.patch_size) for side in (width, height))
        views.append(crop_and_resize(view, size))
        yield views[-1].image


if __name__ == "__main__":
    raise SystemExit(run_main(main))
