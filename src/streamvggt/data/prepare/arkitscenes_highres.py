"""RAW is the download of https://github.com/apple/ARKitScenes (download_data.py raw), with these assets:

RAW/Training|Validation/<scene>/lowres_wide.traj
                                vga_wide/*.png  vga_wide_intrinsics/*.pincam  highres_depth/*.png

Scenes without highres_depth are left out. Every frame with depth of the laser scanner is taken if its colours and pose
are known; frames are called after their colour image, and recordings are turned upright.
"""

from __future__ import annotations

from pathlib import Path

from streamvggt.data.decode import read_png16
from streamvggt.data.prepare._arkit import (
    Recording,
    at_time,
    by_time,
    camera_row,
    raw_folder,
    raw_scenes,
    turn,
    write_frame,
)
from streamvggt.data.prepare._runner import Skip
from streamvggt.data.prepare._scene_table import SceneTable
from streamvggt.data.sources.arkitscenes_highres import ARKitScenesHighRes

FOLDER = ARKitScenesHighRes.folder
SPLITS = {"Training": ("Training",), "Validation": ("Validation",)}


def scenes(raw: Path) -> list[str]:
    return raw_scenes(raw, SPLITS, "highres_depth")


def prepare(raw: Path, scene: str, folder: Path) -> None:
    recording = Recording(raw_folder(raw, scene, SPLITS))
    frames = SceneTable(camera_row, groups=None)
    for time, depth in by_time(recording.folder / "highres_depth", ".png").items():
        image = at_time(recording.images, time)
        view = None if image is None else recording.view(image, read_png16(depth))
        if view is not None:
            view = turn(view, recording.quarter_turns)
            name = recording.images[image].stem
            write_frame(ARKitScenesHighRes, folder, name, view)
            frames.add(f"{name}.png", view)
    if not len(frames):
        raise Skip("no frame has colours, depth, intrinsics and a pose")
    frames.write(folder / ARKitScenesHighRes.table)
