"""OmniObject3D's layout; its source says which files there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.sources.omniobject3d import OmniObject3D
from streamvggt.data.synthetic.layouts._clips import Clip, Written


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """Every scene in another unit: 0.004, 0.008, … of it are a millimetre."""
    root = out / OmniObject3D.folder
    written, scales = [], {}
    for number, clip in enumerate(clips):
        thing = f"anise_{number + 1:03d}"
        scales[thing] = 0.004 * (number + 1)
        units = 1000 * scales[thing]  # of a metre
        frames = [f"r_{frame}" for frame in range(len(clip))]
        for part in ("depth", "cam"):
            (root / thing / part).mkdir(parents=True, exist_ok=True)
        for frame, view in zip(frames, clip, strict=True):
            pose = world_from_cam(view)
            pose[:3, 3] *= units
            write_image(root / thing / "rgb" / f"{frame}.png", view)
            np.save(root / thing / "depth" / f"{frame}.npy", depth_array(view) * np.float32(units))
            np.savez(
                root / thing / "cam" / f"{frame}.npz",
                intrinsics=view.intrinsics.float().numpy(),
                pose=pose.astype(np.float32),
            )
        written.append(Written(thing, frames))
    (root / "scale.json").write_text(json.dumps(scales), encoding="utf-8")
    return written
