"""ARKitScenes' layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.sources.arkitscenes import ARKitScenes
from streamvggt.data.synthetic.layouts._arkit import write_scene
from streamvggt.data.synthetic.layouts._clips import Clip, Written, neighbours_in_time


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """All in the training split."""
    folder = out / ARKitScenes.folder / ARKitScenes.split_folders["train"]
    written = []
    for number, clip in enumerate(clips):
        scene = str(40000001 + number)
        groups = np.array(neighbours_in_time(len(clip)), dtype=object)
        # Begins in the 999th second: as text, what is before the 1000th comes after it.
        frames = write_scene(ARKitScenes, folder / scene, clip, 999.8, image_collection=groups)
        written.append(Written(scene, frames))
    np.savez(folder / "all_metadata.npz", scenes=np.array([place.scene for place in written]))
    return written
