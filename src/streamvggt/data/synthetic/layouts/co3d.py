"""CO3Dv2's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from streamvggt.data.prepare._selected import write_selected
from streamvggt.data.prepare.co3d import write_frame
from streamvggt.data.sources.co3d import CO3D
from streamvggt.data.synthetic.layouts._clips import Clip, Written, near_mask


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """The object of a frame is what is nearer than the median."""
    root = out / CO3D.folder
    scenes = [f"apple/110_13051_{23361 + number}" for number in range(len(clips))]
    written = []
    for scene, clip in zip(scenes, clips, strict=True):
        frames = [f"frame{frame:06d}" for frame in range(1, len(clip) + 1)]
        for name, view in zip(frames, clip, strict=True):
            write_frame(root / scene, name, replace(view, object_ids=near_mask(view)))
        written.append(Written(scene, frames))
    write_selected(root, dict.fromkeys(CO3D.splits, scenes), "images/*.jpg")
    return written
