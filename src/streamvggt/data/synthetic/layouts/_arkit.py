"""What the layouts of both forms of ARKitScenes share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streamvggt.data.prepare._arkit import camera_row, write_frame
from streamvggt.data.prepare._scene_table import SceneTable
from streamvggt.data.sources._arkit import ARKitFrames
from streamvggt.data.synthetic.layouts._clips import Clip

FIRST_SECOND = 999.8  # as text, what is before the 1000th second comes after it


def write_scene(source: type[ARKitFrames], folder: Path, clip: Clip, groups: Callable | None) -> list[str]:
    """A scene's frames, ten a second, and its table; the names of the frames."""
    frames = [f"{folder.name}_{FIRST_SECOND + 0.1 * frame:.3f}" for frame in range(len(clip))]
    table = SceneTable(camera_row, groups)
    for name, view in zip(frames, clip, strict=True):
        write_frame(source, folder, name, view)
        table.add(f"{name}.png", view)
    table.write(folder / source.table)
    return frames
