"""ScanNet++'s layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.sources.scannetpp import TABLE, ScanNetpp, principal_point_excess
from streamvggt.data.synthetic.layouts._clips import Clip, Written, neighbours_in_time


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """The first half of a clip is the still camera's, the rest the phone's."""
    root = out / ScanNetpp.folder
    written = []
    for number, clip in enumerate(clips):
        scene = f"{0x036BCE3393 + number:010x}"
        folder = root / scene
        stills = (len(clip) + 1) // 2
        frames = [f"DSC{frame + 1:05d}" for frame in range(stills)]
        frames += [f"frame_{10 * frame:06d}" for frame in range(len(clip) - stills)]
        intrinsics = np.stack([view.intrinsics.double().numpy() for view in clip])
        for name, view, K in zip(frames, clip, intrinsics, strict=True):
            K[:2, 2] += principal_point_excess(name, view.depth.shape[0])
            write_image(folder / f"images/{name}.jpg", view)
            write_png(folder / f"depth/{name}.png", millimetres(view))
        np.savez(
            folder / TABLE,
            images=np.array(frames),
            intrinsics=intrinsics,
            trajectories=np.stack([world_from_cam(view) for view in clip]),
            image_collection=np.array(neighbours_in_time(len(clip)), dtype=object),
        )
        written.append(Written(scene, frames))
    np.savez(root / "all_metadata.npz", scenes=np.array([place.scene for place in written]))
    return written
