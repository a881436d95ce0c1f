"""RAW is the download of https://github.com/apple/ARKitScenes (download_data.py raw), with these assets:

RAW/Training|Validation/<scene>/lowres_wide.traj
                                vga_wide/*.png  vga_wide_intrinsics/*.pincam  lowres_depth/*.png

Validation becomes the split Test; it may be called so in RAW, too. Ten frames a second are taken where colours, depth
and pose are known, recordings are turned upright, and which frames see the same is found from their depth: no list of
pairs is needed. Scenes that ARKitScenes-HighRes has, too, are left to it when they are read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
from streamvggt.data.prepare._covisibility import covisible
from streamvggt.data.prepare._runner import Skip
from streamvggt.data.prepare._scene_table import SceneTable, write_scene_list
from streamvggt.data.sources.arkitscenes import ARKitScenes

FOLDER = ARKitScenes.folder
SPLITS = {"Training": ("Training",), "Test": ("Validation", "Test")}
FRAMES_PER_SECOND = 10


def scenes(raw: Path) -> list[str]:
    return raw_scenes(raw, SPLITS, "lowres_depth")


def prepare(raw: Path, scene: str, folder: Path) -> None:
    recording = Recording(raw_folder(raw, scene, SPLITS))
    depths = by_time(recording.folder / "lowres_depth", ".png")
    frames = SceneTable(camera_row, covisible)
    last = -np.inf
    for time, image in recording.images.items():
        if time - last < 1 / FRAMES_PER_SECOND - 0.01 or (depth := at_time(depths, time)) is None:
            continue
        view = recording.view(time, read_png16(depths[depth]))
        if view is None:
            continue
        view = turn(view, recording.quarter_turns)
        write_frame(ARKitScenes, folder, image.stem, view)
        frames.add(f"{image.stem}.png", view)
        last = time
    if not len(frames):
        raise Skip("no frame has colours, depth, intrinsics and a pose")
    frames.write(folder / ARKitScenes.table)


def finish(raw: Path, out: Path) -> None:
    for split in SPLITS:
        if (out / split).is_dir():
            write_scene_list(out / split / "all_metadata.npz", ARKitScenes.table)
