"""MVS-Synth (Huang et al., arXiv 1804.00650): streets of a computer game.

ROOT/mvs_synth/<sequence>/rgb/%04d.jpg       PNG files under this published name
                          depth/%04d.npy     float32; 0 or not finite where unknown
                          cam/%04d.npz       intrinsics (3, 3), pose (4, 4) world-from-camera

RAW  GTAV_720, unpacked (huggingface.co/datasets/phuang17/MVS-Synth)
     <sequence>/images/%04d.png
                depths/%04d.exr
                poses/%04d.json     f_x, f_y, c_x, c_y, extrinsic: camera-from-world 4×4, of a left-handed world

The preparation copies the images and makes the world right-handed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import decoding, read_exr, read_json
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips

FOLDER = "mvs_synth"
FILES = FrameFiles("rgb/{}.jpg", "depth/{}.npy", CameraFile("cam/{}.npz", dtype=np.float64), image_kind=".png")
DEPTH_PERCENTILE = 98  # percent of the known pixels that are kept, the nearest
FARTHEST = 1000
SWAPPED = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
"""Swaps x and y of the world, which makes its axes right-handed."""
OUTDOORS = True


class MvsSynth(DatasetReader):
    """MVS-Synth. The farthest 2 % of each frame are unknown: their depth is coarse or that of a backdrop."""

    name, folder, is_metric = "MVS-Synth", FOLDER, False
    view_sampler = ClipSampler(max_interval=4, video_prob=1.0, fix_interval_prob=1.0)

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        return FILES.scenes(listing, self.root)

    def read(self, scene: str, frame: str) -> View:
        stored = FILES.read(self.root / scene, frame)
        return replace(stored, depth=mask_far_depth(stored.depth)).view(self.is_metric)


def mask_far_depth(depth: np.ndarray) -> np.ndarray:
    """Set depth to 0 where it is not finite or among the farthest pixels. (H, W)"""
    depth = np.where(np.isfinite(depth), depth, 0)
    known = depth[depth > 0]
    limit = min(np.percentile(known, DEPTH_PERCENTILE), FARTHEST) if len(known) else FARTHEST
    return np.where(depth > limit, 0, depth)


def raw_scenes(raw: Path) -> list[str]:
    return sorted(path.parent.name for path in raw.glob("*/poses"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    (folder / "rgb").mkdir()
    for image in sorted((raw / scene / "images").glob("*.png")):
        path = raw / scene / f"poses/{image.stem}.json"
        camera = read_json(path)
        with decoding(path, "f_x, f_y, c_x, c_y and a 4×4 extrinsic"):
            fx, fy, cx, cy = (float(camera[name]) for name in ("f_x", "f_y", "c_x", "c_y"))
            intrinsics = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
            extrinsic = np.asarray(camera["extrinsic"], np.float64).reshape(4, 4)
        depth = read_exr(raw / scene / f"depths/{image.stem}.exr")
        shutil.copyfile(image, FILES.image_path(folder, image.stem))
        FILES.write_depth(folder, image.stem, np.where(np.isfinite(depth), depth, 0))
        FILES.camera.write(folder, image.stem, intrinsics, SWAPPED @ np.linalg.inv(extrinsic))


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    return write_clips(FILES, out / FOLDER, clips, map("{:04d}".format, count()), "{:04d}")
