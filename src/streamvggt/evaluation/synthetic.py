"""The held-out table: how good a checkpoint is on scenes of the procedural world that no training has seen.

    python -m streamvggt.evaluation.synthetic results/train/tiny-vggt/best --frames 8 --sequences 64

Beside it stand baselines that anyone can compute: one depth for all pixels, and a camera that never moves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from streamvggt.data.synthetic.world import SyntheticWorld
from streamvggt.data.view import Batch
from streamvggt.evaluation.depth_metrics import absolute_relative_error, scaled_by_median, share_within
from streamvggt.evaluation.pose_metrics import auc, relative_pose_errors, trajectory_error
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import Cameras, cameras_from_encoding
from streamvggt.geometry.pointmap import unproject
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import fingerprint, load_model
from streamvggt.stream.session import StreamSession

COLUMNS = ("AbsRel", "δ<1.25", "AUC@30", "AUC@15", "AUC@5", "ATE", "points")


@dataclass(frozen=True)
class Estimate:
    """What is judged of one sequence: poses (S, 3, 4), depth (S, H, W), world points (S, H, W, 3)."""

    cam_from_world: Tensor
    depth: Tensor
    points: Tensor


Estimator = Callable[[Batch], Estimate]


def evaluate(estimators: dict[str, Estimator], batches: Iterator[Batch]) -> dict[str, dict[str, float]]:
    """Mean numbers of each estimator over sequences (batches of one).

    AbsRel, δ<1.25: depth with one scale per sequence (medians). AUC: relative poses of all pairs of frames.
    ATE: root mean square error of the camera centres after a similarity, over the path's length. points: mean
    distance of the points after a similarity, over the mean distance of the true ones from their centre.
    """
    sums = {name: {column: [] for column in COLUMNS if not column.startswith("AUC")} for name in estimators}
    angles: dict[str, list[Tensor]] = {name: [] for name in estimators}
    for batch in batches:
        valid, depth, pose = batch.valid[0], batch.depth[0], batch.cam_from_world[0]
        if not valid.any():
            continue
        true_points = batch.points()[0][valid].double()
        spread = (true_points - true_points.mean(0)).norm(dim=-1).mean()
        for name, estimator in estimators.items():
            estimate = estimator(batch)
            scaled = scaled_by_median(estimate.depth, depth, valid)
            points = estimate.points[valid].double()
            points = align_points(points, true_points).apply(points)
            numbers = {
                "AbsRel": absolute_relative_error(scaled, depth, valid),
                "δ<1.25": share_within(scaled, depth, valid),
                "ATE": trajectory_error(estimate.cam_from_world, pose),
                "points": ((points - true_points).norm(dim=-1).mean() / spread).item(),
            }
            for column, value in numbers.items():
                sums[name][column].append(value)
            angles[name].append(torch.maximum(*relative_pose_errors(estimate.cam_from_world, pose)))
    table = {}
    for name, columns in sums.items():
        means = {column: sum(values) / len(values) for column, values in columns.items()}
        errors = torch.cat(angles[name])
        means |= {f"AUC@{threshold}": auc(errors, threshold) for threshold in (30, 15, 5)}
        table[name] = {column: means[column] for column in COLUMNS}
    return table


def network(model: VGGT, stream: bool = False) -> Estimator:
    """The network's depth, camera head and points (the point head's, or unprojected depth)."""

    @torch.no_grad()
    def estimate(batch: Batch) -> Estimate:
        images = batch.images.to(next(model.parameters()).device)
        heads = tuple(head for head in model.heads if head != "track")
        if stream:
            session = StreamSession(model, heads=heads)
            said = [session.push(image).to("cpu") for image in images[0]]
            depth = torch.cat([p.depth for p in said], 1)
            pose_enc = torch.cat([p.pose_enc for p in said], 1)
            points = torch.cat([p.points for p in said], 1) if "points" in heads else None
        else:
            whole = model(images, heads=heads).to("cpu")
            depth, pose_enc, points = whole.depth, whole.pose_enc, whole.points
        cameras = cameras_from_encoding(pose_enc[0], tuple(images.shape[-2:]))
        depth = depth[0, ..., 0]
        return Estimate(cameras.cam_from_world, depth, unproject(depth, cameras) if points is None else points[0])

    return estimate


def still_camera(batch: Batch) -> Estimate:
    """One depth everywhere, a camera that never moves and has the true field of view."""
    depth = torch.ones_like(batch.depth[0])
    pose = torch.eye(4)[:3].expand(len(depth), 3, 4)
    return Estimate(pose, depth, unproject(depth, Cameras(pose, batch.intrinsics[0])))


def held_out(split: str, num_sequences: int, num_frames: int, height: int, width: int) -> Iterator[Batch]:
    world = SyntheticWorld(split)
    for index in tqdm(range(num_sequences), desc="held out", unit="sequence", disable=None):
        yield world.batch(index, 1, num_frames, height, width)


def markdown(table: dict[str, dict[str, float]]) -> str:
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, numbers in table.items():
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in numbers.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", help="files or folders, see load_model")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--image", type=int, nargs=2, metavar=("H", "W"), default=(112, 112))
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--sees", choices=("all", "past"), help="load all weights as this (default: as they say)")
    parser.add_argument("--stream", action="store_true", help="frame by frame with a memory")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    arguments = parser.parse_args()
    estimators: dict[str, Estimator] = {}
    for weights in arguments.weights:
        model = load_model(weights, sees=arguments.sees, device=arguments.device)
        estimators[f"{weights} ({model.sees}, {fingerprint(model)})"] = network(model, arguments.stream)
    estimators["one depth, still camera"] = still_camera
    table = evaluate(estimators, held_out(arguments.split, arguments.sequences, arguments.frames, *arguments.image))
    height, width = arguments.image
    print(f"\n{arguments.sequences} {arguments.split} sequences of {arguments.frames} frames, {width}×{height}\n")
    print(markdown(table))
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
