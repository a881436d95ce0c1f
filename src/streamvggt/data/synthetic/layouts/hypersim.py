"""Hypersim's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.sources.hypersim import Hypersim
from streamvggt.data.synthetic.layouts._clips import Clip, Written

OUTDOORS = True


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """Through windows there is nothing: NaN."""
    written = []
    for number, clip in enumerate(clips):
        scene = f"ai_001_{number + 1:03d}/cam_00"
        folder = out / Hypersim.folder / scene
        frames = [f"{frame:06d}" for frame in range(len(clip))]
        for frame, view in zip(frames, clip, strict=True):
            write_image(folder / f"{frame}_rgb.png", view)
            np.save(folder / f"{frame}_depth.npy", np.where(view.valid, depth_array(view), np.float32(np.nan)))
            np.savez(
                folder / f"{frame}_cam.npz",
                intrinsics=view.intrinsics.float().numpy(),
                pose=world_from_cam(view).astype(np.float32),
            )
        written.append(Written(scene, frames))
    return written
