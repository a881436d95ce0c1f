"""Evaluation sets with ground-truth depth: pairs of image and depth files, and the storage format of depth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.decode import DataError, read_png16

Pair = tuple[Path, Path]
"""The files of a frame's image and depth."""


class DepthSet:
    """Scenes with images and ground-truth depth, frames in temporal order.

    Attributes:
        name: Name used by the authors of the set.
        folders: Possible folders under the root of all test sets. Published texts and programs differ.
        is_flat: The images are no videos, and predictions are written to one folder.
    """

    name: ClassVar[str]
    folders: ClassVar[Sequence[str]]
    is_flat: ClassVar[bool] = False

    def __init__(self, root: str | Path):
        """List the frames of the set.

        Args:
            root: Root folder of all test sets.

        Raises:
            FileNotFoundError: If the set is missing or empty.
            DataError: If images and depth files do not match.
        """
        there = [Path(root) / folder for folder in self.folders if (Path(root) / folder).is_dir()]
        if not there:
            raise FileNotFoundError(
                f"no folder at {Path(root) / self.folders[0]}; docs/evaluation.md describes the download and "
                f"preparation of {self.name}"
            )
        self.root = there[0]
        self._pairs = {
            scene: {image.stem: (image, depth) for image, depth in pairs} for scene, pairs in self.list_scenes().items()
        }
        if not any(self._pairs.values()):
            raise FileNotFoundError(
                f"{self.name}: expected frames in {self.root}, got none. Expected files:\n{self.layout()}"
            )
        self.scenes = sorted(self._pairs)

    def frames(self, scene: str) -> list[str]:
        """Return the names of the frames in temporal order: file names of the images without suffix."""
        return list(self._pairs[scene])

    def image_path(self, scene: str, frame: str) -> Path:
        return self._pairs[scene][frame][0]

    def depth(self, scene: str, frame: str) -> Tensor:
        """Read ground-truth depth along the optical axis in meters, unknown where ≤ 0. (H, W)

        The number format is that of the published evaluation.

        Raises:
            DataError, OSError: If the file is damaged or missing.
        """
        return torch.from_numpy(self.read_depth(self._pairs[scene][frame][1]))

    # To be overridden by a test set.

    def list_scenes(self) -> dict[str, list[Pair]]:
        raise NotImplementedError

    def read_depth(self, path: Path):
        raise NotImplementedError

    @classmethod
    def layout(cls) -> str:
        """Return the expected files, from the docstring of the module."""
        return (sys.modules[cls.__module__].__doc__ or "").partition("\n\n")[2].strip()


def subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))


def pair_by_name(images: Sequence[Path], depths: Sequence[Path]) -> list[Pair]:
    """Pair images and depth files of equal name.

    Raises:
        DataError: If a file has no partner.
    """
    by_name = {path.stem: path for path in depths}
    alone = sorted({path.stem for path in images} ^ set(by_name))
    if alone:
        where = images[0].parent if images else depths[0].parent
        raise DataError(
            f"{where}: {len(images)} images but {len(depths)} depth files; without partner: {', '.join(alone[:5])}"
            f"{', …' if len(alone) > 5 else ''}. Remove them or prepare the data set again"
        )
    return [(image, by_name[image.stem]) for image in images]


def pair_by_order(images: Sequence[Path], depths: Sequence[Path]) -> list[Pair]:
    """Pair images and depth files of equal position in the lists.

    Raises:
        DataError: If the lists differ in length.
    """
    if len(images) != len(depths):
        where = (images or depths)[0].parent
        raise DataError(f"{where}: {len(images)} images but {len(depths)} depth files; prepare the data set again")
    return list(zip(images, depths, strict=True))


def read_fixed_point(path: Path, steps_per_meter: int) -> np.ndarray:
    """Read depth in meters from a 16-bit image, -1 where unknown. (H, W) float64"""
    steps = read_png16(path)
    if steps.max() <= 255:
        raise DataError(f"{path}: no value is above 255, so these are 8-bit values in a 16-bit file; get it again")
    return np.where(steps > 0, steps.astype(np.float64) / steps_per_meter, -1.0)
