"""MPI Sintel (Butler et al., ECCV 2012): an animated film with true depth.

sintel/training/final/<sequence>/frame_%04d.png
sintel/training/depth/<sequence>/frame_%04d.dpt
sintel/training/camdata_left/<sequence>/frame_%04d.cam    for camera trajectories only
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.decode import BadData
from streamvggt.evaluation.depth_metrics import Rules
from streamvggt.evaluation.readers.depth_set import DepthSet, Pair, files, pair_by_name, subfolders
from streamvggt.evaluation.readers.trajectory_set import TrajectorySet

TAG = 202021.25
"""The first number of .dpt and .cam files; another one means that the bytes are in another order."""

FOURTEEN = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2"),
    *("market_5", "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
"""The sequences of camera trajectory evaluations, 643 frames; the rest has hardly any motion, or none that is known."""


class Sintel(DepthSet):
    name = "Sintel"
    folders = ("sintel",)
    rules = Rules(max_depth=70, clip_after=(None, 70))
    num_published = (23, 1064)

    def list_scenes(self) -> dict[str, list[Pair]]:
        depths = self.root / "training" / "depth"
        return {
            folder.name: pair_by_name(files(folder, ".png"), files(depths / folder.name, ".dpt"))
            for folder in subfolders(self.root / "training" / "final")
        }

    def read_depth(self, path: Path) -> np.ndarray:
        return read_dpt(path)


class SintelTrajectories(TrajectorySet):
    """The fourteen sequences."""

    name = "Sintel"
    folder = "sintel"
    num_published = len(FOURTEEN)

    def list_scenes(self) -> list[str]:
        return [name for name in FOURTEEN if (self.root / "training" / "camdata_left" / name).is_dir()]

    def images(self, sequence: str) -> list[Path]:
        return files(self.root / "training" / "final" / sequence, ".png")

    def poses(self, sequence: str) -> Tensor:
        cameras = self.root / "training" / "camdata_left" / sequence
        paths = [cameras / f"{image.stem}.cam" for image in self.images(sequence)]
        return torch.from_numpy(np.stack([read_cam(path)[1] for path in paths]))


def read_cam(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (3, 3) and camera-from-world pose (3, 4), float64."""
    content = path.read_bytes()
    if len(content) != 4 + 8 * (9 + 12) or np.frombuffer(content[:4], "<f4")[0] != TAG:
        raise BadData(f"{path} is not a .cam file, or is damaged: {TAG} and 21 numbers were expected")
    numbers = np.frombuffer(content, "<f8", offset=4).astype(np.float64)
    return numbers[:9].reshape(3, 3), numbers[9:].reshape(3, 4)


def read_dpt(path: Path) -> np.ndarray:
    """Depth in metres; the sky is far away. (H, W) float32"""
    content = path.read_bytes()
    tag = np.frombuffer(content[:4], "<f4")
    size = np.frombuffer(content[4:12], "<i4")
    if not len(tag) or tag[0] != TAG or len(size) != 2 or not 1 < int(size[0]) * int(size[1]) < 1e8:
        raise BadData(f"{path} is not a .dpt file, or is damaged: it does not begin with {TAG}, width and height")
    width, height = size.tolist()
    if len(content) != 12 + 4 * width * height:
        raise BadData(
            f"{path} is cut off: {width}×{height} numbers were expected, {(len(content) - 12) // 4} are there"
        )
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width).astype(np.float32)
