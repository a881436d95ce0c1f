"""WildRGB-D's layout; its source says which files there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.sources.wildrgbd import WildRGBD
from streamvggt.data.synthetic.layouts._clips import Clip, Written, near_mask

CATEGORY = "apple"


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """The object of a frame is what is nearer than the median."""
    root = out / WildRGBD.folder
    selected, written = {}, []
    for number, clip in enumerate(clips):
        sequence = f"scenes/scene_{number + 1:03d}"
        folder = root / CATEGORY / sequence
        (folder / "metadata").mkdir(parents=True, exist_ok=True)
        frames = [f"{frame:05d}" for frame in range(len(clip))]
        for name, view in zip(frames, clip, strict=True):
            write_image(folder / f"rgb/{name}.jpg", view)
            write_png(folder / f"depth/{name}.png", millimetres(view))
            write_png(folder / f"masks/{name}.png", near_mask(view))
            np.savez(
                folder / f"metadata/{name}.npz",
                camera_intrinsics=view.intrinsics.double().numpy(),
                camera_pose=world_from_cam(view),
            )
        selected[sequence] = list(range(len(clip)))
        written.append(Written(f"{CATEGORY}/{sequence}", frames))
    for split in WildRGBD.splits:
        (root / f"selected_seqs_{split}.json").write_text(json.dumps({CATEGORY: selected}))
    return written
