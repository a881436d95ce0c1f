"""KITTI depth, a test set. RAW, with data_depth_annotated.zip and the raw drives unpacked into it:

val/<drive>_sync/proj_depth/groundtruth/image_02/%010d.png
<date>/<drive>_sync/image_02/data/%010d.png                   13 drives; or without the folder of the date

Of each drive the first 110 frames that have depth are taken, and of these the ones that have an image.
"""

from __future__ import annotations

from pathlib import Path

from streamvggt.data.prepare._runner import Skip
from streamvggt.files import link_or_copy

FOLDER = "kitti/depth_selection/val_selection_cropped"
PARTS = ("image_gathered", "groundtruth_depth_gathered")
NUM_FRAMES = 110


def scenes(raw: Path) -> list[str]:
    """Images and depth of a drive go to two places, so they are two scenes."""
    drives = [path.parents[2].name for path in sorted(raw.glob("val/*_sync/proj_depth/groundtruth/image_02"))]
    return [f"{part}/{drive}_02" for drive in drives for part in PARTS]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    part, _, name = scene.partition("/")
    drive = name.removesuffix("_02")
    depths = sorted((raw / "val" / drive / "proj_depth" / "groundtruth" / "image_02").glob("*.png"))[:NUM_FRAMES]
    images = _drive(raw, drive) / "image_02" / "data"
    pairs = [(images / depth.name, depth) for depth in depths if (images / depth.name).exists()]
    if not pairs:
        raise Skip(f"of {len(depths)} depth maps none has an image in {images}: download the raw drive")
    for pair in pairs:
        path = pair[PARTS.index(part)]
        link_or_copy(path, folder / path.name)


def _drive(raw: Path, drive: str) -> Path:
    in_date = raw / drive[:10] / drive
    return in_date if in_date.is_dir() else raw / drive
