"""BlendedMVS's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.decode import write_exr
from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.prepare.blendedmvs import write_overlaps
from streamvggt.data.sources.blendedmvs import OVERLAP, BlendedMVS
from streamvggt.data.synthetic.layouts._clips import Clip, Written


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """How much images share is found from what they see."""
    root = out / BlendedMVS.folder
    written = []
    for number, clip in enumerate(clips):
        scene = f"5{number:023x}"
        frames = [f"{frame:08d}" for frame in range(len(clip))]
        for frame, view in zip(frames, clip, strict=True):
            pose = world_from_cam(view).astype(np.float32)
            write_image(root / scene / f"{frame}.jpg", view)
            write_exr(root / scene / f"{frame}.exr", depth_array(view))
            np.savez(
                root / scene / f"{frame}.npz",
                intrinsics=view.intrinsics.float().numpy(),
                R_cam2world=pose[:3, :3],
                t_cam2world=pose[:3, 3],
            )
        written.append(Written(scene, frames))
    write_overlaps(root, root / OVERLAP)
    return written
