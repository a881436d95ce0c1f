"""Evaluate checkpoints on held-out scenes of the procedural world.

    python -m streamvggt.evaluation.synthetic ckpt/tiny-vggt --scene-type rooms --frames 8 --sequences 64

The table includes trivial baselines: constant depth and a static camera. Cameras are evaluated twice: those of the
camera head, and those implied by points and depth.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from procedural_scenes.scene import STYLES
from procedural_scenes.world import SyntheticScenes
from streamvggt.choices import CameraCacheMode
from streamvggt.data.view import Batch
from streamvggt.evaluation.arguments import synthetic_parser
from streamvggt.evaluation.depth_metrics import absolute_relative_error, delta_accuracy, median_scale
from streamvggt.evaluation.jobs import run_main
from streamvggt.evaluation.pose_metrics import ate, auc, relative_pose_errors
from streamvggt.evaluation.run_metadata import write_json
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc
from streamvggt.geometry.pointmap import unproject
from streamvggt.model.device import resolve_device
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.fingerprint import fingerprint
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import load_model
from streamvggt.stream.policy import parse_policy
from streamvggt.stream.session import StreamSession

COLUMNS = ("AbsRel", "δ<1.25", "AUC@30", "AUC@15", "AUC@5", "AUC@30 points", "ATE", "points", "ms")


@dataclass(frozen=True)
class Estimate:
    """Predictions of one sequence.

    Attributes:
        cam_from_world: (S, 3, 4)
        depth: (S, H, W)
        points: World points. (S, H, W, 3)
        pose_from_points: Poses implied by points and depth. None if the points are computed from the poses. (S, 3, 4)
    """

    cam_from_world: Tensor
    depth: Tensor
    points: Tensor
    pose_from_points: Tensor | None = None


Estimator = Callable[[Batch], Estimate]


def evaluate(estimators: dict[str, Estimator], batches: Iterator[Batch]) -> dict[str, dict[str, float]]:
    """Return the mean metrics of each estimator over sequences (batches of one).

    AbsRel, δ<1.25: depth with one median scale per sequence. AUC: relative poses of all pairs of frames. "AUC@30
    points": AUC of the implied poses. ATE: RMS error of the camera centers after similarity alignment, relative to the
    path length.
    points: mean distance of the points after similarity alignment, relative to the mean distance of the ground-truth
    points from their centroid. ms: median time per frame.
    """
    sums = {name: {column: [] for column in COLUMNS if not column.startswith("AUC")} for name in estimators}
    angles: dict[str, list[Tensor]] = {name: [] for name in estimators}
    pose_from_points: dict[str, list[Tensor]] = {name: [] for name in estimators}
    for batch in batches:
        valid, depth, pose = batch.valid[0], batch.depth[0], batch.cam_from_world[0]
        if not valid.any():
            continue
        gt_points = batch.points()[0][valid].double()
        spread = (gt_points - gt_points.mean(0)).norm(dim=-1).mean()
        for name, estimator in estimators.items():
            began = time.perf_counter()
            estimate = estimator(batch)
            seconds = time.perf_counter() - began
            scaled = median_scale(estimate.depth, depth, valid)
            points = estimate.points[valid].double()
            points = align_points(points, gt_points).apply(points)
            numbers = {
                "AbsRel": absolute_relative_error(scaled, depth, valid),
                "δ<1.25": delta_accuracy(scaled, depth, valid),
                "ATE": ate(estimate.cam_from_world, pose),
                "points": ((points - gt_points).norm(dim=-1).mean() / spread).item(),
                "ms": 1000 * seconds / len(pose),
            }
            for column, value in numbers.items():
                sums[name][column].append(value)
            angles[name].append(torch.maximum(*relative_pose_errors(estimate.cam_from_world, pose)))
            if estimate.pose_from_points is not None:
                pose_from_points[name].append(torch.maximum(*relative_pose_errors(estimate.pose_from_points, pose)))
    table = {}
    for name, columns in sums.items():
        means = {column: sum(values) / len(values) for column, values in columns.items()}
        means["ms"] = statistics.median(columns["ms"])
        means["AUC@30 points"] = auc(torch.cat(pose_from_points[name]), 30) if pose_from_points[name] else float("nan")
        errors = torch.cat(angles[name])
        means |= {f"AUC@{threshold}": auc(errors, threshold) for threshold in (30, 15, 5)}
        table[name] = {column: means[column] for column in COLUMNS}
    return table


def model_estimator(
    model: VGGT, policy: EvictionPolicy | None = None, camera_cache: CameraCacheMode = "per_iteration"
) -> Estimator:
    """Return an estimator of depth, camera head and points (of the point head, or unprojected depth).

    Args:
        model: The model.
        policy: Eviction policy of a stream. None processes the whole sequence at once.
        camera_cache: Camera cache of the stream, see `VGGT.new_memory`.
    """

    @torch.no_grad()
    def estimate(batch: Batch) -> Estimate:
        images = batch.images.to(next(model.parameters()).device)
        heads = tuple(head for head in model.heads if head != "track")
        if policy is not None:
            session = StreamSession(model, policy=policy, heads=heads, camera_cache=camera_cache)
            predictions = [session.push(image).without_stages().to("cpu") for image in images[0]]
            depth = torch.cat([p.depth for p in predictions], 1)
            pose_enc = torch.cat([p.cam_from_world_enc for p in predictions], 1)
            points = torch.cat([p.points for p in predictions], 1) if "points" in heads else None
        else:
            whole = model(images, heads=heads).without_stages().to("cpu")
            depth, pose_enc, points = whole.depth, whole.cam_from_world_enc, whole.points
        cameras = cameras_from_pose_enc(pose_enc[0], tuple(images.shape[-2:]))
        depth = depth[0, ..., 0]
        if points is None:
            return Estimate(cameras.cam_from_world, depth, unproject(depth, cameras))
        pose_from_points = poses_from_points(depth, cameras.intrinsics, points[0])
        return Estimate(cameras.cam_from_world, depth, points[0], pose_from_points)

    return estimate


def poses_from_points(depth: Tensor, intrinsics: Tensor, points: Tensor) -> Tensor:
    """Compute the poses implied by depth and world points: the least-squares similarity of each frame.

    Args:
        depth: (S, H, W)
        intrinsics: (S, 3, 3)
        points: World points of these pixels. (S, H, W, 3)

    Returns:
        Camera-from-world poses in the unit of the points. (S, 3, 4)
    """
    rest = torch.eye(4)[:3].expand(len(depth), 3, 4)
    seen = unproject(depth, Cameras(rest, intrinsics)).flatten(1, 2).double()  # in camera axes
    fitted = align_points(points.flatten(1, 2).double(), seen)
    translation = fitted.translation / fitted.scale.clamp(min=1e-9)[:, None]
    return torch.cat([fitted.rotation, translation[..., None]], -1).to(depth.dtype)


def static_camera_baseline(batch: Batch) -> Estimate:
    """Return constant depth and a static camera with the ground-truth field of view."""
    depth = torch.ones_like(batch.depth[0])
    pose = torch.eye(4)[:3].expand(len(depth), 3, 4)
    return Estimate(pose, depth, unproject(depth, Cameras(pose, batch.intrinsics[0])))


def held_out_sequences(
    split: str, num_sequences: int, num_frames: int, height: int, width: int, style: str = "all"
) -> Iterator[Batch]:
    """Yield held-out sequences of one of the `STYLES`."""
    world = SyntheticScenes(split, style=STYLES[style])
    for index in tqdm(range(num_sequences), desc="held out", unit="sequence", disable=None):
        yield world.batch(index, 1, num_frames, height, width)


def markdown(table: dict[str, dict[str, float]]) -> str:
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, numbers in table.items():
        cells = (f"{value:.1f}" if column == "ms" else f"{value:.3f}" for column, value in numbers.items())
        lines.append(f"| {name} | " + " | ".join("–" if value == "nan" else value for value in cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = synthetic_parser()
    arguments = parser.parse_args()
    try:
        policy = parse_policy(arguments.policy) if arguments.policy else None
    except ValueError as error:
        parser.error(str(error))
    estimators: dict[str, Estimator] = {}
    for weights in arguments.weights:
        model = load_model(weights, causal=arguments.causal, device=resolve_device(arguments.device))
        estimators[f"{weights} ({'causal' if model.causal else 'bidirectional'}, {fingerprint(model)})"] = (
            model_estimator(model, policy)
        )
    estimators["constant depth, static camera"] = static_camera_baseline
    batches = held_out_sequences(
        arguments.split, arguments.sequences, arguments.frames, *arguments.image_size, arguments.scene_type
    )
    table = evaluate(estimators, batches)
    print(
        f"\n{arguments.sequences} {arguments.split} sequences ({arguments.scene_type}) of {arguments.frames} frames, ",
        end="",
    )
    print("{1}×{0}\n".format(*arguments.image_size))
    print(markdown(table))
    if arguments.json:
        write_json(arguments.json, table)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main))
