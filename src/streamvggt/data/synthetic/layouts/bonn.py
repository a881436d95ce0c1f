"""Bonn RGB-D Dynamic's layout, a test set; `evaluation/readers/bonn.py` says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, write_image, write_png
from streamvggt.data.synthetic.layouts._clips import Clip, Written

SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """Five at most. Images and depth have different times, as in the original."""
    written = []
    for scene, clip in zip(SEQUENCES, clips, strict=False):
        folder = out / "bonn" / "rgbd_bonn_dataset" / f"rgbd_bonn_{scene}"
        frames = [f"{1548266500 + number / 30:.5f}" for number in range(len(clip))]
        for number, (frame, view) in enumerate(zip(frames, clip, strict=True)):
            steps = np.round(depth_array(view) * 5000)
            write_image(folder / "rgb_110" / f"{frame}.png", view)
            write_png(
                folder / "depth_110" / f"{1548266500.01 + number / 30:.5f}.png",
                np.where(steps < 1 << 16, steps, 0).astype(np.uint16),
            )
        written.append(Written(scene, frames))
    return written
