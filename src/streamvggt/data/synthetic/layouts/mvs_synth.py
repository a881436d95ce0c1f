"""MVS-Synth's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamvggt.data.sources.mvs_synth import MvsSynth
from streamvggt.data.synthetic.layouts._clips import Clip, Written, write_rgb_depth_cam

OUTDOORS = True


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """Pictures are PNG under the name of JPEG, as published."""
    return [
        write_rgb_depth_cam(out / MvsSynth.folder, f"{number:04d}", clip, name="{:04d}", suffix=".jpg", kind=".png")
        for number, clip in enumerate(clips)
    ]
