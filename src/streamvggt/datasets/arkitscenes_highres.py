"""ARKitScenes (Baruch et al., arXiv 2111.08897), those of its frames that have the depth of a laser scanner.

ROOT/processed_arkitscenes_highres/Training|Validation/<scene>/scene_metadata.npz    see _scene_table.py
                                                               vga_wide/<scene>_<seconds>.jpg
                                                               highres_depth/<scene>_<seconds>.png    uint16, mm

RAW is the download of https://github.com/apple/ARKitScenes (download_data.py raw), with these assets:
     Training|Validation/<scene>/lowres_wide.traj
                                 vga_wide/*.png  vga_wide_intrinsics/*.pincam  highres_depth/*.png

Scenes without highres_depth are skipped. Every frame with depth of the laser scanner is taken if its colors and pose
are known; frames are called after their color image, and recordings are turned upright.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from streamvggt.data.decode import read_png16
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.view import View
from streamvggt.datasets import _arkit
from streamvggt.datasets._files import FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._scene_table import scene_frames

FOLDER = "processed_arkitscenes_highres"
RAW_SPLITS = {"Training": ("Training",), "Validation": ("Validation",)}
"""Possible raw folders of each prepared split folder."""


class ARKitScenesHighRes(_arkit.ARKitFrames):
    """ARKitScenes with laser-scanner depth. Frames that the table lists but that have no files are omitted."""

    name, folder = "ARKitScenes-HighRes", FOLDER
    files = FrameFiles("vga_wide/{}.jpg", "highres_depth/{}.png")
    view_sampler = ClipSampler(max_interval=8, video_prob=0.5, fix_interval_prob=0.5, block_shuffle=16)
    table = "scene_metadata.npz"
    split_folders = {"train": "Training", "test": "Validation"}  # noqa: RUF012

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        scenes = {}
        for scene in listing.folders(self.split_folder):
            folder = self.split_folder / scene
            there = set(self.files.names(listing, folder))
            there &= set(listing.files(self.files.depth_path(folder, "").parent, ".png"))
            scenes[scene] = sorted(there.intersection(scene_frames(listing, folder / self.table)), key=_arkit.seconds)
        return scenes


def raw_scenes(raw: Path) -> list[str]:
    return _arkit.raw_scenes(raw, RAW_SPLITS, "highres_depth")


def prepare(raw: Path, scene: str, folder: Path) -> None:
    recording = _arkit.Recording(_arkit.raw_folder(raw, scene, RAW_SPLITS))
    _arkit.write_scene(ARKitScenesHighRes, folder, measured_frames(recording), groups=None)


def measured_frames(recording: _arkit.Recording) -> Iterator[tuple[str, View]]:
    """Yield every frame with laser-scanner depth, rotated upright."""
    for time, depth in _arkit.sorted_by_time(recording.folder / "highres_depth", ".png").items():
        image = _arkit.nearest_time(recording.images, time)
        view = None if image is None else recording.view(image, read_png16(depth))
        if view is not None:
            yield recording.images[image].stem, _arkit.rotate_view(view, recording.quarter_turns)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    return _arkit.write_clips(ARKitScenesHighRes, out, clips, 41000001, groups=None)
