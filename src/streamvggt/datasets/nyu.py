"""NYU Depth v2 (Silberman et al., ECCV 2012): rooms, single images. For evaluation.

ROOT/nyu_v2/val/nyu_images/*.png
                nyu_depths/*.npy    (H, W), meters

RAW  with the validation shards of sayakpaul/nyu_depth_v2 (Hugging Face) unpacked into it
     val/official/*.h5    rgb (3, H, W) uint8, depth (H, W) meters; any folder will do
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.decode import DataError, read_hdf5, read_npy, write_rgb
from streamvggt.data.encode import depth_array, write_image
from streamvggt.datasets._depth_set import DepthSet, Pair, files, pair_by_name
from streamvggt.datasets._fixtures import Clip, WrittenScene

FOLDER = "nyu_v2/val"
IMAGES, DEPTHS = "nyu_images", "nyu_depths"


class Nyu(DepthSet):
    """NYU Depth v2. One scene, "val", of unrelated images."""

    name = "NYU-v2"
    folders = ("nyu_v2", "nyu-v2")
    is_flat = True

    def list_scenes(self) -> dict[str, list[Pair]]:
        val = self.root / "val"
        return {"val": pair_by_name(files(val / IMAGES, ".png"), files(val / DEPTHS, ".npy"))}

    def read_depth(self, path: Path) -> np.ndarray:
        depth = read_npy(path)
        if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
            raise DataError(f"{path}: floating-point depth (H, W) was expected, it is {depth.dtype} {depth.shape}")
        return depth.astype(np.float32)


def raw_scenes(raw: Path) -> list[str]:
    """Return two scenes, because images and depth have separate folders."""
    return [IMAGES, DEPTHS] if _files(raw) else []


def prepare(raw: Path, scene: str, folder: Path) -> None:
    for path in _files(raw):
        if scene == IMAGES:
            pixels = read_hdf5(path, "rgb")
            if pixels.ndim != 3 or len(pixels) != 3 or pixels.dtype != np.uint8:
                raise DataError(f"{path}: rgb (3, H, W) uint8 was expected, it is {pixels.dtype} {pixels.shape}")
            write_rgb(folder / f"{path.stem}.png", pixels.transpose(1, 2, 0))
        else:
            np.save(folder / f"{path.stem}.npy", read_hdf5(path, "depth"))


def _files(raw: Path) -> list[Path]:
    return sorted(raw.rglob("*.h5"))


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write the frames of all clips into one folder."""
    val = out / FOLDER
    (val / DEPTHS).mkdir(parents=True, exist_ok=True)
    views = [view for clip in clips for view in clip]
    frames = [f"{number + 1:05d}" for number in range(len(views))]
    for frame, view in zip(frames, views, strict=True):
        write_image(val / IMAGES / f"{frame}.png", view)
        np.save(val / DEPTHS / f"{frame}.npy", depth_array(view))
    return [WrittenScene("val", frames)]
