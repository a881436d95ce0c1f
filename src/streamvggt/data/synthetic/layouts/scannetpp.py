"""ScanNet++'s layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamvggt.data.prepare._scene_table import SceneTable, write_scene_list
from streamvggt.data.prepare.scannetpp import stored_intrinsics, write_frame
from streamvggt.data.sources.scannetpp import TABLE, ScanNetpp
from streamvggt.data.synthetic.layouts._clips import Clip, Written, neighbours_in_time


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """The first half of a clip is the still camera's, the rest the phone's."""
    root = out / ScanNetpp.folder
    written = []
    for number, clip in enumerate(clips):
        scene = f"{0x036BCE3393 + number:010x}"
        stills = (len(clip) + 1) // 2
        frames = [f"DSC{frame + 1:05d}" for frame in range(stills)]
        frames += [f"frame_{10 * frame:06d}" for frame in range(len(clip) - stills)]
        table = SceneTable(stored_intrinsics, neighbours_in_time)
        for name, view in zip(frames, clip, strict=True):
            write_frame(root / scene, name, view)
            table.add(name, view)
        table.write(root / scene / TABLE)
        written.append(Written(scene, frames))
    write_scene_list(root / "all_metadata.npz", TABLE)
    return written
