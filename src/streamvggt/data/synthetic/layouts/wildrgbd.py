"""WildRGB-D's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from streamvggt.data.prepare._selected import write_selected
from streamvggt.data.prepare.wildrgbd import write_frame
from streamvggt.data.sources.wildrgbd import WildRGBD
from streamvggt.data.synthetic.layouts._clips import Clip, Written, near_mask


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """The object of a frame is what is nearer than the median."""
    root = out / WildRGBD.folder
    scenes = [f"apple/scenes/scene_{number + 1:03d}" for number in range(len(clips))]
    written = []
    for scene, clip in zip(scenes, clips, strict=True):
        frames = [f"{frame:05d}" for frame in range(len(clip))]
        for name, view in zip(frames, clip, strict=True):
            write_frame(root / scene, name, replace(view, object_ids=near_mask(view)))
        written.append(Written(scene, frames))
    write_selected(root, dict.fromkeys(WildRGBD.splits, scenes), "rgb/*.jpg")
    return written
