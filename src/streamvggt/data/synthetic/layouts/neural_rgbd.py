"""Neural RGB-D's layout, a test set; `evaluation/readers/neural_rgbd.py` says which files there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.synthetic.layouts._clips import Clip, Written

FOV = 2 * math.atan(320 / 554.2562584220408)
SCENES = ("breakfast_room", "complete_kitchen", "green_room", "grey_white_room", "kitchen")
OPENGL_FROM_OPENCV = np.diag([1.0, -1, -1, 1])


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """As many as there are names."""
    written = []
    for scene, clip in zip(SCENES, clips, strict=False):
        folder = out / "neural_rgbd" / scene
        for number, view in enumerate(clip):
            write_image(folder / f"images/img{number}.png", view)
            write_png(folder / f"depth/depth{number}.png", millimetres(view))
        poses = [world_from_cam(view) @ OPENGL_FROM_OPENCV for view in clip]
        np.savetxt(folder / "poses.txt", np.concatenate(poses), fmt="%.9f")
        written.append(Written(scene, [str(number) for number in range(len(clip))]))
    return written
