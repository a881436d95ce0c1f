"""NYU Depth v2, a test set. RAW, with the validation shards of sayakpaul/nyu_depth_v2 (Hugging Face) unpacked into it:

val/official/*.h5    rgb (3, H, W) uint8, depth (H, W) metres; any folder will do
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData, read_hdf5, write_colour

FOLDER = "nyu_v2/val"


def scenes(raw: Path) -> list[str]:
    """Images and depth go to two places, so they are two scenes."""
    return ["nyu_images", "nyu_depths"] if _files(raw) else []


def prepare(raw: Path, scene: str, folder: Path) -> None:
    for path in _files(raw):
        if scene == "nyu_images":
            pixels = read_hdf5(path, "rgb")
            if pixels.ndim != 3 or len(pixels) != 3 or pixels.dtype != np.uint8:
                raise BadData(f"{path}: rgb (3, H, W) uint8 was expected, it is {pixels.dtype} {pixels.shape}")
            write_colour(folder / f"{path.stem}.png", pixels.transpose(1, 2, 0))
        else:
            np.save(folder / f"{path.stem}.npy", read_hdf5(path, "depth"))


def _files(raw: Path) -> list[Path]:
    return sorted(raw.rglob("*.h5"))
