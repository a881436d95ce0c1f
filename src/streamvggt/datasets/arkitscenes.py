"""ARKitScenes (Baruch et al., arXiv 2111.08897): rooms seen by a tablet with a depth sensor.

ROOT/processed_arkitscenes/Training|Test/all_metadata.npz                                scenes
                                         <scene>/new_scene_metadata.npz                  see _scene_table.py
                                                 vga_wide/<scene>_<seconds>.jpg
                                                 lowres_depth/<scene>_<seconds>.png      uint16, millimeters

RAW is the download of https://github.com/apple/ARKitScenes (download_data.py raw), with these assets:
     Training|Validation/<scene>/lowres_wide.traj
                                 vga_wide/*.png  vga_wide_intrinsics/*.pincam  lowres_depth/*.png

Validation becomes the split Test; RAW can contain either name. The preparation selects ten frames per second with
color, depth and pose, rotates recordings upright, and finds overlapping frames from their depth, so no list of pairs is
needed. The reader skips scenes that ARKitScenes-HighRes also contains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.decode import read_png16
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler, CovisibilitySampler
from streamvggt.data.view import View
from streamvggt.datasets import _arkit
from streamvggt.datasets._covisibility import covisible
from streamvggt.datasets._files import FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, neighbors_in_time
from streamvggt.datasets._scene_table import scene_frames, scene_groups, write_scene_list
from streamvggt.datasets.arkitscenes_highres import ARKitScenesHighRes

FOLDER = "processed_arkitscenes"
SCENES = "all_metadata.npz"
RAW_SPLITS = {"Training": ("Training",), "Test": ("Validation", "Test")}
"""Possible raw folders of each prepared split folder."""
FRAMES_PER_SECOND = 10


class ARKitScenes(_arkit.ARKitFrames):
    """ARKitScenes with depth of the tablet sensor. Scenes that ARKitScenes-HighRes also contains are omitted."""

    name, folder = "ARKitScenes", FOLDER
    files = FrameFiles("vga_wide/{}.jpg", "lowres_depth/{}.png")
    view_sampler = CovisibilitySampler(
        ClipSampler(max_interval=8, video_prob=0.8, fix_interval_prob=0.5, block_shuffle=16), clip_prob=0.5
    )
    table = "new_scene_metadata.npz"
    split_folders = {"train": "Training", "test": "Test"}  # noqa: RUF012

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        scenes = {str(scene) for scene in listing.npz(self.split_folder / SCENES, "scenes")["scenes"]}
        better = self.root.parent / ARKitScenesHighRes.folder / ARKitScenesHighRes.split_folders[self.split]
        if listing.exists(better):
            scenes -= set(listing.folders(better))
        return {
            scene: sorted(scene_frames(listing, self.split_folder / scene / self.table), key=_arkit.seconds)
            for scene in sorted(scenes)
        }

    def groups(self, scene: str) -> Sequence[Sequence[int]]:
        return scene_groups(self.split_folder / scene / self.table, tuple(self.frames(scene)))


def raw_scenes(raw: Path) -> list[str]:
    return _arkit.raw_scenes(raw, RAW_SPLITS, "lowres_depth")


def prepare(raw: Path, scene: str, folder: Path) -> None:
    recording = _arkit.Recording(_arkit.raw_folder(raw, scene, RAW_SPLITS))
    _arkit.write_scene(ARKitScenes, folder, sampled_frames(recording), covisible)


def sampled_frames(recording: _arkit.Recording) -> Iterator[tuple[str, View]]:
    """Yield frames with depth, at most `FRAMES_PER_SECOND`, rotated upright."""
    depths = _arkit.sorted_by_time(recording.folder / "lowres_depth", ".png")
    last = -np.inf
    for time, image in recording.images.items():
        if time - last < 1 / FRAMES_PER_SECOND - 0.01 or (depth := _arkit.nearest_time(depths, time)) is None:
            continue
        view = recording.view(time, read_png16(depths[depth]))
        if view is not None:
            yield image.stem, _arkit.rotate_view(view, recording.quarter_turns)
            last = time


def finish(raw: Path, out: Path) -> None:
    for split in RAW_SPLITS:
        if (out / split).is_dir():
            write_scene_list(out / split / SCENES, ARKitScenes.table)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    written = _arkit.write_clips(ARKitScenes, out, clips, 40000001, neighbors_in_time)
    write_scene_list(out / FOLDER / ARKitScenes.split_folders["train"] / SCENES, ARKitScenes.table)
    return written
