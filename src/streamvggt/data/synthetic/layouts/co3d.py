"""CO3Dv2's layout; its source says which files there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, world_from_cam, write_image, write_png
from streamvggt.data.sources.co3d import CO3D, FULL_SCALE
from streamvggt.data.synthetic.layouts._clips import Clip, Written, near_mask

CATEGORY = "apple"


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """The object of a frame is what is nearer than the median."""
    root = out / CO3D.folder
    selected, written = {}, []
    for number, clip in enumerate(clips):
        sequence = f"110_13051_{23361 + number}"
        folder = root / CATEGORY / sequence
        frames = [f"frame{frame:06d}" for frame in range(1, len(clip) + 1)]
        for name, view in zip(frames, clip, strict=True):
            depth = depth_array(view)
            maximum = depth.max()
            write_image(folder / f"images/{name}.jpg", view)
            scaled = np.round(depth / max(maximum, 1e-6) * FULL_SCALE).astype(np.uint16)
            write_png(folder / f"depths/{name}.jpg.geometric.png", scaled)
            write_png(folder / f"masks/{name}.png", near_mask(view))
            np.savez(
                folder / f"images/{name}.npz",
                camera_intrinsics=view.intrinsics.double().numpy(),
                camera_pose=world_from_cam(view).astype(np.float32),
                maximum_depth=np.float32(maximum),
            )
        selected[sequence] = list(range(1, len(clip) + 1))
        written.append(Written(f"{CATEGORY}/{sequence}", frames))
    for split in CO3D.splits:
        (root / f"selected_seqs_{split}.json").write_text(json.dumps({CATEGORY: selected}))
    return written
