"""ScanNet's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.sources.scannet import TABLE, ScanNet
from streamvggt.data.synthetic.layouts._clips import Clip, Written


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """All in the training split."""
    written = []
    for number, clip in enumerate(clips):
        scene = f"scene{number:04d}_00"
        folder = out / ScanNet.folder / "scans_train" / scene
        (folder / "cam").mkdir(parents=True, exist_ok=True)
        frames = [f"{frame:05d}" for frame in range(len(clip))]
        for name, view in zip(frames, clip, strict=True):
            write_image(folder / f"color/{name}.jpg", view)
            write_png(folder / f"depth/{name}.png", millimetres(view))
            np.savez(
                folder / f"cam/{name}.npz",
                intrinsics=view.intrinsics.float().numpy(),
                pose=world_from_cam(view).astype(np.float32),
            )
        np.savez(folder / TABLE, images=np.array(frames))
        written.append(Written(scene, frames))
    return written
