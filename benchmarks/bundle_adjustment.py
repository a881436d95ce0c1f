"""Measure bundle adjustment of perturbed cameras of the procedural world, by source of the tracks.

python benchmarks/bundle_adjustment.py --scenes 24 --out benchmarks/bundle_adjustment.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from environment_info import output_path, publish
from tqdm import tqdm

from procedural_scenes import SyntheticScenes
from procedural_scenes.scene import SceneConfig
from streamvggt.data.view import Batch
from streamvggt.evaluation.pose_metrics import auc, relative_pose_errors
from streamvggt.flags import whole
from streamvggt.geometry.camera import Cameras, compose_poses, invert_pose
from streamvggt.geometry.rotation import matrix_from_quaternion
from streamvggt.refinement.bundle_adjustment import BundleAdjustmentError, Tracks, adjust
from streamvggt.refinement.sift import sift_tracks

SIZE = (294, 392)
NUM_FRAMES = 6


def disturbed(cameras: Cameras, generator: torch.Generator) -> Cameras:
    """Rotate by 2° per axis, shift by 5 % of the spread (both one sigma), enlarge the focal length by 5 %."""
    poses = cameras.cam_from_world.double()
    half = torch.deg2rad(torch.randn(len(poses), 3, generator=generator).double() * 2) / 2
    turn = matrix_from_quaternion(torch.cat([half, torch.ones(len(poses), 1).double()], -1))
    centers = invert_pose(poses)[..., 3]
    spread = (centers - centers.mean(0)).norm(dim=-1).mean()
    shift = torch.randn(len(poses), 3, 1, generator=generator).double() * spread / 20
    intrinsics = cameras.intrinsics.double() * torch.tensor([[1.05, 1, 1], [1, 1.05, 1], [1, 1, 1]])
    return Cameras(compose_poses(torch.cat([turn, shift], -1), poses), intrinsics)


def true_tracks(batch: Batch, generator: torch.Generator) -> Tracks:
    """Return ground-truth tracks with noise of 0.5 pixels, a tenth of them wrong."""
    positions = batch.tracks[0] + 0.5 * torch.randn(batch.tracks[0].shape, generator=generator)
    is_wrong = torch.rand(positions.shape[:2], generator=generator) < 0.1
    anywhere = torch.rand(positions.shape, generator=generator) * torch.tensor(SIZE[::-1])
    return Tracks(torch.where(is_wrong[..., None], anywhere, positions), batch.visibility[0])


PROVIDERS: dict[str, Callable[[Batch, torch.Generator], Tracks]] = {
    "known tracks, 0.5 px noise, a tenth wrong": true_tracks,
    "SIFT": lambda batch, _: sift_tracks(batch.images[0], batch.cameras),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=whole(), default=24, help="number of scenes (default: 24)")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    world = SyntheticScenes("test", style=SceneConfig(moving_prob=0.0))
    before: list[list[float]] = []
    after: dict[str, list[list[float]]] = {name: [] for name in PROVIDERS}
    kept = dict.fromkeys(PROVIDERS, 0)
    for scene in tqdm(range(arguments.scenes), unit="scene"):
        generator = torch.Generator().manual_seed(scene)
        batch = world.batch(scene, 1, NUM_FRAMES, *SIZE, num_tracks=400)
        true = Cameras(batch.cam_from_world[0], batch.intrinsics[0])
        start = disturbed(true, generator)
        before.append(areas(start.cam_from_world, true.cam_from_world))
        for name, provider in PROVIDERS.items():
            poses = start.cam_from_world
            try:
                poses = adjust(start, provider(batch, generator), SIZE, batch.depth[0]).cameras.cam_from_world
            except BundleAdjustmentError:
                kept[name] += 1
            after[name].append(areas(poses, true.cam_from_world))
    lines = [
        "# Bundle adjustment of disturbed cameras",
        "",
        f"{arguments.scenes} static scenes, {NUM_FRAMES} frames of {SIZE[1]}×{SIZE[0]}. Disturbed: {disturbed.__doc__}",
        "",
        "| cameras | AUC@30 | AUC@15 | AUC@5 | better in | worse in | kept as they were |",
        "|---|---|---|---|---|---|---|",
        f"| disturbed | {text(before)} | | | |",
    ]
    for name, numbers in after.items():
        change = np.array(numbers)[:, 1] - np.array(before)[:, 1]
        counts = f"{(change > 0).sum()} | {(change < 0).sum()} | {kept[name]}"
        lines.append(f"| adjusted, {name} | {text(numbers)} | {counts} |")
    publish(lines, arguments.out, torch.device("cpu"))


def areas(poses: torch.Tensor, true: torch.Tensor) -> list[float]:
    errors = torch.maximum(*relative_pose_errors(poses, true))
    return [auc(errors, threshold) for threshold in (30, 15, 5)]


def text(numbers: list[list[float]]) -> str:
    return " | ".join(f"{value:.3f}" for value in np.mean(numbers, 0))


if __name__ == "__main__":
    main()
