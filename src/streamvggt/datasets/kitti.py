"""KITTI depth (Uhrig et al., 3DV 2017): drives with accumulated laser scans. For evaluation.

ROOT/kitti/depth_selection/val_selection_cropped/
     image_gathered/<drive>_02/%010d.png
     groundtruth_depth_gathered/<drive>_02/%010d.png    uint16, 1/256 m, 0 unknown

RAW  with data_depth_annotated.zip and the raw drives unpacked into it
     val/<drive>_sync/proj_depth/groundtruth/image_02/%010d.png
     <date>/<drive>_sync/image_02/data/%010d.png                   13 drives; or without the folder of the date

Of each drive the first 110 frames that have depth are taken, and of these the ones that have an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, write_image, write_png
from streamvggt.datasets._depth_set import DepthSet, Pair, files, pair_by_name, read_fixed_point, subfolders
from streamvggt.datasets._files import fixed_point
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._prepare import SkipScene
from streamvggt.files import link_or_copy

FOLDER = "kitti/depth_selection/val_selection_cropped"
IMAGES, DEPTHS = PARTS = ("image_gathered", "groundtruth_depth_gathered")
STEPS_PER_METER = 256
NUM_FRAMES = 110
OUTDOORS = True
DRIVES = (
    *("2011_09_26_drive_0002_sync_02", "2011_09_26_drive_0005_sync_02", "2011_09_26_drive_0013_sync_02"),
    *("2011_09_26_drive_0020_sync_02", "2011_09_26_drive_0023_sync_02", "2011_09_26_drive_0036_sync_02"),
)


class Kitti(DepthSet):
    """KITTI depth. A scene is a drive."""

    name = "KITTI"
    folders = (FOLDER,)

    def list_scenes(self) -> dict[str, list[Pair]]:
        return {
            folder.name: pair_by_name(files(folder, ".png"), files(self.root / DEPTHS / folder.name, ".png"))
            for folder in subfolders(self.root / IMAGES)
        }

    def read_depth(self, path: Path) -> np.ndarray:
        return read_fixed_point(path, STEPS_PER_METER)


def raw_scenes(raw: Path) -> list[str]:
    """Return two scenes per drive, because images and depth have separate folders."""
    drives = [path.parents[2].name for path in sorted(raw.glob("val/*_sync/proj_depth/groundtruth/image_02"))]
    return [f"{part}/{drive}_02" for drive in drives for part in PARTS]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    part, _, name = scene.partition("/")
    drive = name.removesuffix("_02")
    depths = sorted((raw / "val" / drive / "proj_depth" / "groundtruth" / "image_02").glob("*.png"))[:NUM_FRAMES]
    images = _drive(raw, drive) / "image_02" / "data"
    pairs = [(images / depth.name, depth) for depth in depths if (images / depth.name).exists()]
    if not pairs:
        raise SkipScene(f"of {len(depths)} depth maps none has an image in {images}: download the raw drive")
    for pair in pairs:
        path = pair[PARTS.index(part)]
        link_or_copy(path, folder / path.name)


def _drive(raw: Path, drive: str) -> Path:
    in_date = raw / drive[:10] / drive
    return in_date if in_date.is_dir() else raw / drive


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures, one scene per name. Depth covers every second row and column up to 80 m."""
    written = []
    for scene, clip in zip(DRIVES, clips, strict=False):
        frames = [f"{number + 5:010d}" for number in range(len(clip))]
        for frame, view in zip(frames, clip, strict=True):
            depth = depth_array(view)
            scanned = np.zeros_like(depth)
            scanned[::2, ::2] = np.where(depth < 80, depth, 0)[::2, ::2]
            write_image(out / FOLDER / IMAGES / scene / f"{frame}.png", view)
            write_png(out / FOLDER / DEPTHS / scene / f"{frame}.png", fixed_point(scanned, STEPS_PER_METER))
        written.append(WrittenScene(scene, frames))
    return written
