"""ScanNet's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamvggt.data.prepare.scannet import write_frame, write_table
from streamvggt.data.sources.scannet import ScanNet
from streamvggt.data.synthetic.layouts._clips import Clip, Written


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """All in the training split."""
    written = []
    for number, clip in enumerate(clips):
        scene = f"scene{number:04d}_00"
        folder = out / ScanNet.folder / "scans_train" / scene
        frames = [f"{frame:05d}" for frame in range(len(clip))]
        for name, view in zip(frames, clip, strict=True):
            write_frame(folder, name, view)
        write_table(folder, frames)
        written.append(Written(scene, frames))
    return written
