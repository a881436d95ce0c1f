"""Evaluation sets with ground-truth camera trajectories.

S frames. Poses are camera-from-world with OpenCV axes. Unknown poses are not finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.decode import DataError
from streamvggt.geometry.camera import invert_pose


@dataclass(frozen=True)
class Trajectory:
    """Images of a sequence in temporal order, and ground-truth camera-from-world poses. (S, 3, 4) float64"""

    images: list[Path]
    cam_from_world: Tensor


class TrajectorySet:
    """Sequences with images and ground-truth poses.

    Attributes:
        name: Name used by the authors of the set.
        folder: Folder under the root of all test sets.
    """

    name: ClassVar[str]
    folder: ClassVar[str]

    def __init__(self, root: str | Path):
        """List the sequences of the set.

        Args:
            root: Root folder of all test sets.

        Raises:
            FileNotFoundError: If the set is missing or empty.
        """
        self.root = Path(root) / self.folder
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"no folder at {self.root}; docs/evaluation.md describes the download and preparation of {self.name}"
            )
        self.scenes = sorted(self.list_scenes())
        if not self.scenes:
            raise FileNotFoundError(
                f"{self.root} contains no sequences with images and poses; docs/evaluation.md lists the expected files"
            )

    def read(self, sequence: str) -> Trajectory:
        """Read the images and poses of a sequence.

        Raises:
            DataError: If images and poses differ in number, or the poses cannot be read.
        """
        images = self.images(sequence)
        poses = self.poses(sequence)
        if len(images) != len(poses):
            raise DataError(
                f"{self.name}, {sequence}: {len(images)} images but {len(poses)} poses; prepare the data set again"
            )
        return Trajectory(images, poses)

    # To be overridden by a test set.

    def list_scenes(self) -> list[str]:
        raise NotImplementedError

    def images(self, sequence: str) -> list[Path]:
        """Return the image files in temporal order."""
        raise NotImplementedError

    def poses(self, sequence: str) -> Tensor:
        """Return the camera-from-world pose of each image. (S, 3, 4) float64"""
        raise NotImplementedError


def from_world_from_cam(poses: np.ndarray) -> Tensor:
    """Convert world-from-camera poses (S, 4, 4) or (S, 3, 4) to camera-from-world (S, 3, 4) float64."""
    return invert_pose(torch.from_numpy(poses[:, :3].astype(np.float64)))
