"""Measure the time to score predictions of realistic size from files. No network runs.

    python benchmarks/evaluation.py --out benchmarks/evaluation.md

Depth: ScanNet's layout, ground-truth depth of 640×480 as 16-bit PNG, predictions of 518×378. Files are linked, so that
they are decoded as often as in a real evaluation. Reconstruction: the walls of a room, as many points as five views of
224×224 pixels.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from environment_info import output_path, publish

from streamvggt.data.encode import write_png
from streamvggt.evaluation.monodepth import MonoDepth
from streamvggt.evaluation.point_clouds import estimate_normals, icp
from streamvggt.evaluation.pose_metrics import auc, relative_pose_errors, trajectory_errors
from streamvggt.evaluation.recon_metrics import compare_clouds
from streamvggt.evaluation.video_depth import VideoDepth
from streamvggt.files import link_or_copy
from streamvggt.flags import whole
from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc

HEIGHT, WIDTH = 480, 640
PREDICTED = (378, 518)
NUM_DISTINCT = 10


def write_depth(root: Path, num_frames: int, per_scene: int) -> None:
    """Write a test set and predictions to `eval` and `predicted`."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    for number in range(NUM_DISTINCT):
        depth = 2 + np.sin(x / 90 + number) + np.cos(y / 70) + random.normal(0, 0.003, (HEIGHT, WIDTH))
        depth[random.random((HEIGHT, WIDTH)) < 0.1] = 0
        write_png(root / "made" / f"{number}.png", np.round(depth.clip(0) * 1000).astype(np.uint16))
        rows, columns = (
            np.linspace(0, side - 1, n).astype(int) for side, n in zip((HEIGHT, WIDTH), PREDICTED, strict=True)
        )
        predicted = np.maximum(depth[rows][:, columns], 0.5) * random.uniform(0.4, 0.6, PREDICTED)
        np.save(root / "made" / f"{number}.npy", predicted.astype(np.float32))
    (root / "made" / "image.jpg").touch()
    for first in range(0, num_frames, per_scene):
        scene = f"scene{707 + first // per_scene:04d}_00"
        folder, predictions = root / "eval" / "scannetv2" / scene, root / "predicted" / scene
        for place in (folder / "color_90", folder / "depth_90", predictions):
            place.mkdir(parents=True)
        for frame in range(min(per_scene, num_frames - first)):
            made = root / "made" / str(frame % NUM_DISTINCT)
            link_or_copy(root / "made" / "image.jpg", folder / "color_90" / f"frame_{frame:04d}.jpg")
            link_or_copy(made.with_suffix(".png"), folder / "depth_90" / f"frame_{frame:04d}.png")
            link_or_copy(made.with_suffix(".npy"), predictions / f"frame_{frame:04d}.npy")
            link_or_copy(made.with_suffix(".npy"), predictions / f"frame_{frame:04d}depth.npy")


def room(num_points: int) -> np.ndarray:
    """Return points on the inside of a box of 4×3×5 meters. (N, 3)"""
    random = np.random.default_rng(0)
    points = random.uniform(-0.5, 0.5, (num_points, 3))
    wall = random.integers(0, 3, num_points)
    points[np.arange(num_points), wall] = random.choice([-0.5, 0.5], num_points)
    return points * [4, 3, 5] + random.normal(0, 0.005, points.shape)


def score_room(num_points: int) -> None:
    true = room(num_points)
    estimated = true + np.random.default_rng(1).normal(0, 0.02, true.shape) + 0.02
    moved = icp(estimated, true, 0.1).apply(estimated)
    compare_clouds(moved, true, estimate_normals(moved), estimate_normals(true))


def cameras(num_frames: int, seed: int) -> Cameras:
    generator = torch.Generator().manual_seed(seed)
    encoding = torch.randn(num_frames, 9, generator=generator, dtype=torch.float64)
    return cameras_from_pose_enc(encoding, (HEIGHT, WIDTH))


def score_pairs(num_sequences: int) -> None:
    for number in range(num_sequences):
        poses = [cameras(10, seed).cam_from_world for seed in (number, number + 1)]
        auc(torch.maximum(*relative_pose_errors(*poses)), 30)


def score_way(num_frames: int) -> None:
    trajectory_errors(*(cameras(num_frames, seed).cam_from_world for seed in (0, 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=whole(), default=1000)
    parser.add_argument("--per-scene", type=whole(), default=100)
    parser.add_argument("--align", nargs="+", default=list(VideoDepth.alignments), help="of video depth")
    parser.add_argument("--out", type=output_path)
    options = parser.parse_args()
    rows = []

    def measure(what: str, of: str, score) -> None:
        begun, used = time.perf_counter(), time.process_time()
        score()
        wall, processor = time.perf_counter() - begun, time.process_time() - used
        rows.append(f"| {what} | {of} | {wall:.1f} s | {processor:.1f} s |")
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_depth(root, options.frames, options.per_scene)
        words = [
            "--eval_dataset",
            "scannet",
            "--data_root",
            str(root / "eval"),
            "--output_dir",
            str(root / "predicted"),
        ]
        frames = f"{options.frames} frames of {WIDTH}×{HEIGHT}"
        measure("monocular depth, median", frames, lambda: MonoDepth().main(words, predict=False))
        for align in options.align:
            measure(
                f"video depth, {align}",
                f"{frames}, {options.per_scene} in a video",
                lambda align=align: VideoDepth().main([*words, "--align", align], predict=False),
            )
    measure("reconstruction", f"one scene, {5 * 224 * 224:,} points on both sides", lambda: score_room(5 * 224 * 224))
    measure("relative poses", "1000 sequences of ten frames", lambda: score_pairs(1000))
    measure("trajectory", "1000 frames", lambda: score_way(1000))
    lines = ["# Scoring", "", "| what | of | time | processor time |", "|---|---|---|---|", *rows]
    publish(lines, options.out, torch.device("cpu"))


if __name__ == "__main__":
    main()
