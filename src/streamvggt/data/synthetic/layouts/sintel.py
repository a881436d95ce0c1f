"""MPI Sintel's layout, a test set; `evaluation/readers/sintel.py` says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, write_image
from streamvggt.data.synthetic.layouts._clips import Clip, Written

OUTDOORS = True
TAG = 202021.25
SKY = 1000.0  # metres
SEQUENCES = ("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5", "temple_2")


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """As many as there are names."""
    training = out / "sintel" / "training"
    written = []
    for scene, clip in zip(SEQUENCES, clips, strict=False):
        frames = [f"frame_{number + 1:04d}" for number in range(len(clip))]
        for folder in ("depth", "camdata_left"):
            (training / folder / scene).mkdir(parents=True, exist_ok=True)
        for frame, view in zip(frames, clip, strict=True):
            write_image(training / "final" / scene / f"{frame}.png", view)
            depth = depth_array(view)
            write_dpt(training / "depth" / scene / f"{frame}.dpt", np.where(view.sky.numpy(), SKY, depth))
            write_cam(
                training / "camdata_left" / scene / f"{frame}.cam", view.intrinsics.numpy(), view.cam_from_world.numpy()
            )
        written.append(Written(scene, frames))
    return written


def write_dpt(path: Path, depth: np.ndarray) -> None:
    """Metres. (H, W)"""
    height, width = depth.shape
    head = np.float32(TAG).tobytes() + np.array([width, height], "<i4").tobytes()
    path.write_bytes(head + depth.astype("<f4").tobytes())


def write_cam(path: Path, intrinsics: np.ndarray, cam_from_world: np.ndarray) -> None:
    """(3, 3) and (3, 4)"""
    path.write_bytes(
        np.float32(TAG).tobytes() + intrinsics.astype("<f8").tobytes() + cam_from_world.astype("<f8").tobytes()
    )
