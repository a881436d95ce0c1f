"""MegaDepth's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.decode import write_exr
from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.sources.megadepth import HELD_OUT, SETS, MegaDepth
from streamvggt.data.synthetic.layouts._clips import Clip, Written

OUTDOORS = True
SET_SIZE = 64


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """Every second scene is one that training does not see. In a set images come again until it is full."""
    root = out / MegaDepth.folder
    written, scenes, images, sets = [], [], [], []
    for number, clip in enumerate(clips):
        scene, sub = HELD_OUT[0] if number % 2 else f"{number // 2 + 1:04d}", str(number // 2 if number % 2 else 0)
        frames = [f"{number}_{frame}.jpg" for frame in range(len(clip))]
        for frame, view in zip(frames, clip, strict=True):
            stem = root / scene / sub / frame
            write_image(Path(f"{stem}.jpg"), view)
            write_exr(Path(f"{stem}.exr"), np.where(view.sky, np.float32(-1), depth_array(view)))
            np.savez(f"{stem}.npz", intrinsics=view.intrinsics.double().numpy(), cam2world=world_from_cam(view))
        sets.append([len(scenes), *(len(images) + np.arange(SET_SIZE) % len(clip))])
        scenes.append(f"{scene} {sub}")
        images += frames
        written.append(Written(f"{scene}/{sub}", frames))
    np.savez(root / SETS, scenes=np.array(scenes), images=np.array(images), sets=np.array(sets))
    return written
