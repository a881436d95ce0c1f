"""ARKitScenes-HighRes' layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamvggt.data.sources.arkitscenes_highres import ARKitScenesHighRes
from streamvggt.data.synthetic.layouts._arkit import write_scene
from streamvggt.data.synthetic.layouts._clips import Clip, Written


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """All in the training split."""
    folder = out / ARKitScenesHighRes.folder / ARKitScenesHighRes.split_folders["train"]
    scenes = [str(41000001 + number) for number in range(len(clips))]
    return [
        Written(scene, write_scene(ARKitScenesHighRes, folder / scene, clip, groups=None))
        for scene, clip in zip(scenes, clips, strict=True)
    ]
