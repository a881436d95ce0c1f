"""The layout of TUM RGB-D's prepared sequences; `evaluation/readers/tum.py` says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from streamvggt.data.encode import world_from_cam, write_image
from streamvggt.data.synthetic.layouts._clips import Clip, Written
from streamvggt.geometry.rotation import quaternion_from_matrix

SEQUENCES = tuple(f"{who}_{how}" for who in ("sitting", "walking") for how in ("halfsphere", "rpy", "static", "xyz"))
START = 1341845688.5
"""Seconds."""


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """As many as there are names."""
    written = []
    for sequence, clip in zip(SEQUENCES, clips, strict=False):
        folder = out / "tum" / f"rgbd_dataset_freiburg3_{sequence}"
        times = [START + 0.1 * number for number in range(len(clip))]
        for time, view in zip(times, clip, strict=True):
            write_image(folder / f"rgb_90/{time:.6f}.png", view)
        lines = [f"{time:.4f} {_pose(world_from_cam(view))}\n" for time, view in zip(times, clip, strict=True)]
        (folder / "groundtruth_90.txt").write_text("".join(lines), encoding="utf-8")
        written.append(Written(folder.name, [f"{time:.6f}" for time in times]))
    return written


def _pose(matrix) -> str:
    """Translation and quaternion x, y, z, w."""
    pose = torch.from_numpy(matrix)
    numbers = torch.cat([pose[:3, 3], quaternion_from_matrix(pose[:3, :3])])
    return " ".join(f"{number:.9f}" for number in numbers.tolist())
