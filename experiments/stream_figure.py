"""Figure of long streams: predicted clouds and trajectories beside the ground truth, from above.

S frames · K of them with depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.long_streams import GroundTruth, StreamOutputs
from experiments.result_figure import splat, view_from_above
from streamvggt.evaluation.pose_metrics import align_trajectory
from streamvggt.files import atomic_write
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import Cameras, invert_pose
from streamvggt.geometry.pointmap import unproject

CLOUD_FRAMES = 80
AZIMUTH = 0.6
PYRAMIDS = 25
"""Maximum number of cameras drawn among the points."""


def draw_streams(truth: GroundTruth, outputs: Mapping[str, StreamOutputs], path: Path) -> None:
    """Write a figure with one column for the ground truth and one per stream.

    Upper row: clouds of depth and cameras, aligned by a similarity of corresponding points. Lower row: trajectories
    from above, aligned by a similarity of the camera centers.
    """
    figure = Figure(figsize=(5 * (1 + len(outputs)), 7.5), layout="constrained")
    axes = figure.subplots(2, 1 + len(outputs))
    frames = next(iter(outputs.values())).frames
    chosen = torch.linspace(0, len(frames) - 1, min(CLOUD_FRAMES, len(frames))).round().long()
    numbers = frames[chosen]
    true_cameras = Cameras(truth.cam_from_world[numbers], truth.intrinsics.expand(len(numbers), 3, 3))
    gt_points = unproject(truth.depth[numbers].float(), true_cameras)
    true_poses = invert_pose(true_cameras.cam_from_world)
    colors = truth.images[numbers].movedim(1, -1).float() / 255
    view = view_from_above(gt_points.flatten(0, 2), AZIMUTH)
    axes[0, 0].imshow(_cloud(gt_points, colors, true_poses, view))
    axes[0, 0].set_title("ground truth", fontsize=10)
    for column, (name, stream) in enumerate(outputs.items(), 1):
        cameras = Cameras(stream.cameras.cam_from_world[numbers], stream.cameras.intrinsics[numbers])
        points = unproject(stream.depth[chosen].float(), cameras)
        moved = align_points(points.flatten(0, 2).double(), gt_points.flatten(0, 2).double())
        points = moved.apply(points.flatten(0, 2).double()).view(points.shape).float()
        poses = invert_pose(cameras.cam_from_world).double()
        poses = torch.cat([moved.rotation @ poses[..., :3], moved.apply(poses[..., 3])[..., None]], -1).float()
        axes[0, column].imshow(_cloud(points, colors, poses, view))
        axes[0, column].set_title(name, fontsize=10)
    for column, (name, stream) in enumerate([("truth", None), *outputs.items()]):
        ours, theirs = align_trajectory(
            truth.cam_from_world if stream is None else stream.cameras.cam_from_world, truth.cam_from_world
        )
        plan = axes[1, column]
        plan.plot(*theirs[:, [0, 2], 3].T, color="black", lw=0.8)
        if stream is not None:
            time = np.linspace(0, 1, len(ours))
            plan.scatter(*ours[:, [0, 2], 3].T, c=time, cmap="plasma", s=2)
            plan.set_title(
                f"trajectory from above: ground truth black, {name} from first (blue) to last (yellow)", fontsize=8
            )
        plan.set(aspect="equal", xlabel="x, m", ylabel="z, m")
        plan.sharex(axes[1, 0])
        plan.sharey(axes[1, 0])
    for above in axes[0]:
        above.axis("off")
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, dpi=90)


def _cloud(points: Tensor, colors: Tensor, poses: Tensor, view: Cameras) -> np.ndarray:
    """(K, H, W, 3), (K, H, W, 3), world-from-camera (K, 3, 4)"""
    origins = poses[:, None, None, :, 3].expand(points.shape)
    some = poses[:: max(1, len(poses) // PYRAMIDS)]
    return splat(points.flatten(0, 2), colors.flatten(0, 2), origins.flatten(0, 2), view, some)
