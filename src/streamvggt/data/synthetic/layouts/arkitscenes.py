"""ARKitScenes' layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamvggt.data.prepare._scene_table import write_scene_list
from streamvggt.data.sources.arkitscenes import ARKitScenes
from streamvggt.data.synthetic.layouts._arkit import write_scene
from streamvggt.data.synthetic.layouts._clips import Clip, Written, neighbours_in_time


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """All in the training split."""
    folder = out / ARKitScenes.folder / ARKitScenes.split_folders["train"]
    scenes = [str(40000001 + number) for number in range(len(clips))]
    written = [
        Written(scene, write_scene(ARKitScenes, folder / scene, clip, neighbours_in_time))
        for scene, clip in zip(scenes, clips, strict=True)
    ]
    write_scene_list(folder / "all_metadata.npz", ARKitScenes.table)
    return written
