"""Virtual KITTI 2's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, world_from_cam, write_image, write_png
from streamvggt.data.sources.virtual_kitti2 import VirtualKitti2
from streamvggt.data.synthetic.layouts._clips import Clip, Written

OUTDOORS = True
SKY = 65535


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """Two clips make a town: one for each camera; without a second one the first is seen by both."""
    written = []
    for number, clip in enumerate(clips):
        town = f"Scene{number // 2 + 1:02d}/clone"
        cameras = ["Camera_0", "Camera_1"] if number == len(clips) - 1 and number % 2 == 0 else [f"Camera_{number % 2}"]
        for camera in cameras:
            folder = out / VirtualKitti2.folder / town / camera
            for frame, view in enumerate(clip):
                centimetres = np.round(depth_array(view) * 100).clip(0, SKY).astype(np.uint16)
                centimetres[view.sky.numpy()] = SKY
                write_image(folder / f"{frame:05d}_rgb.jpg", view)
                write_png(folder / f"{frame:05d}_depth.png", centimetres)
                np.savez(
                    folder / f"{frame:05d}_cam.npz",
                    camera_intrinsics=view.intrinsics.float().numpy(),
                    camera_pose=world_from_cam(view).astype(np.float32),
                )
        written.append(Written(f"{town}/{cameras[0]}", [f"{frame:05d}" for frame in range(len(clip))]))
    return written
