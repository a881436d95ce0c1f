"""Waymo's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from streamvggt.data.decode import write_exr
from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.sources.waymo import INVALID, Waymo
from streamvggt.data.synthetic.layouts._clips import Clip, Written

OUTDOORS = True


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """Four clips make a segment, one for each of the cameras 1 to 4.

    The first camera's last frame is there once more, and marked as invalid; the fifth camera sees as the first does.
    """
    root = out / Waymo.folder
    written, invalid = [], {}
    for number, clip in enumerate(clips):
        segment, camera = f"segment-{number // 4:020d}_with_camera_labels.tfrecord", number % 4 + 1
        (root / segment).mkdir(parents=True, exist_ok=True)
        for frame, view in enumerate(clip):
            write_frame(root / segment / f"{frame:05d}_{camera}", view)
            if camera == 1:
                write_frame(root / segment / f"{frame:05d}_5", view)
        if camera == 1:
            write_frame(root / segment / f"{len(clip):05d}_1", clip[-1])
            invalid[segment] = [f"1_{len(clip):05d}"]
        written.append(Written(f"{segment}/{camera}", [f"{frame:05d}" for frame in range(len(clip))]))
    with h5py.File(root / INVALID, "w") as file:
        for segment, pairs in invalid.items():
            file[f"{segment}/invalid_pairs"] = np.array(pairs, "S")
    return written


def write_frame(stem: Path, view) -> None:
    """Depth along the lines of a laser: two rows of each four."""
    depth = depth_array(view)
    depth[np.arange(len(depth)) % 4 >= 2] = 0
    write_image(stem.with_suffix(".jpg"), view)
    write_exr(stem.with_suffix(".exr"), depth)
    np.savez(
        stem.with_suffix(".npz"),
        intrinsics=view.intrinsics.double().numpy(),
        cam2world=world_from_cam(view),
        distortion=np.zeros(5),
    )
