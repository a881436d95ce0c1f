"""Evaluation sets with ground-truth camera trajectories.

S frames. Poses are camera-from-world; where one is unknown its numbers are not finite.
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
    """A sequence: images in the order of time, and the true poses. (S, 3, 4) float64"""

    images: list[Path]
    cam_from_world: Tensor


class TrajectorySet:
    """Sequences by name.

    name: as its authors write it.
    folder: where it lies under the root of all test sets.
    """

    name: ClassVar[str]
    folder: ClassVar[str]

    def __init__(self, root: str | Path):
        """
        Args:
            root: of all test sets.

        Raises:
            FileNotFoundError: the set is not there.
        """
        self.root = Path(root) / self.folder
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"there is no folder {self.root}; docs/evaluation.md says where to get {self.name} and how to prepare "
                "it"
            )
        self.scenes = sorted(self.list_scenes())
        if not self.scenes:
            raise FileNotFoundError(
                f"{self.root} holds no sequences with images and poses; docs/evaluation.md says what must be there"
            )

    def read(self, sequence: str) -> Trajectory:
        """
        Raises:
            DataError: there are not as many poses as images, or they cannot be read.
        """
        images = self.images(sequence)
        poses = self.poses(sequence)
        if len(images) != len(poses):
            raise DataError(
                f"{self.name}, {sequence}: {len(images)} images but {len(poses)} poses; prepare the data set again"
            )
        return Trajectory(images, poses)

    # What a test set says.

    def list_scenes(self) -> list[str]:
        raise NotImplementedError

    def images(self, sequence: str) -> list[Path]:
        """In the order of time."""
        raise NotImplementedError

    def poses(self, sequence: str) -> Tensor:
        """Camera-from-world of each image, in its order. (S, 3, 4) float64"""
        raise NotImplementedError


def from_world_from_cam(poses: np.ndarray) -> Tensor:
    """World-from-camera (S, 4, 4) or (S, 3, 4) → camera-from-world (S, 3, 4) float64"""
    return invert_pose(torch.from_numpy(poses[:, :3].astype(np.float64)))
