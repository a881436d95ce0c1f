"""Spring's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamvggt.data.sources.spring import Spring
from streamvggt.data.synthetic.layouts._clips import Clip, Written, write_rgb_depth_cam

OUTDOORS = True


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    return [
        write_rgb_depth_cam(out / Spring.folder, f"{number + 1:04d}", clip, name="{:04d}", suffix=".png")
        for number, clip in enumerate(clips)
    ]
