"""KITTI depth's layout, a test set; `evaluation/readers/kitti.py` says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, write_image, write_png
from streamvggt.data.synthetic.layouts._clips import Clip, Written

OUTDOORS = True
DRIVES = (
    *("2011_09_26_drive_0002_sync_02", "2011_09_26_drive_0005_sync_02", "2011_09_26_drive_0013_sync_02"),
    *("2011_09_26_drive_0020_sync_02", "2011_09_26_drive_0023_sync_02", "2011_09_26_drive_0036_sync_02"),
)


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """As many as there are names. The scanner sees every other line and column, up to 80 m."""
    gathered = out / "kitti" / "depth_selection" / "val_selection_cropped"
    written = []
    for scene, clip in zip(DRIVES, clips, strict=False):
        frames = [f"{number + 5:010d}" for number in range(len(clip))]
        for frame, view in zip(frames, clip, strict=True):
            write_image(gathered / "image_gathered" / scene / f"{frame}.png", view)
            depth = depth_array(view)
            scanned = np.zeros(depth.shape, np.uint16)
            scanned[::2, ::2] = np.round(np.where(depth < 80, depth, 0) * 256)[::2, ::2]
            write_png(gathered / "groundtruth_depth_gathered" / scene / f"{frame}.png", scanned)
        written.append(Written(scene, frames))
    return written
