"""The layout of ScanNet's test scenes; `evaluation/readers/scannet.py` says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.synthetic.layouts._clips import Clip, Written


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    written = []
    for number, clip in enumerate(clips):
        scene = f"scene{707 + number:04d}_00"
        folder = out / "scannetv2" / scene
        frames = [f"frame_{frame:04d}" for frame in range(len(clip))]
        for frame, view in zip(frames, clip, strict=True):
            write_image(folder / "color_90" / f"{frame}.jpg", view)
            write_png(folder / "depth_90" / f"{frame}.png", millimetres(view))
        np.savetxt(folder / "pose_90.txt", [world_from_cam(view).flatten() for view in clip], fmt="%.9f")
        written.append(Written(scene, frames))
    return written
