"""TUM RGB-D's dynamic sequences (Sturm et al., IROS 2012): people at a desk, the camera's way from motion capture.

tum/<sequence>/rgb_90/<time>.png
               groundtruth_90.txt    a line for each image: time, position, quaternion x y z w; world-from-camera

`streamvggt data prepare tum` makes both.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from streamvggt.evaluation.readers.trajectory_set import TrajectorySet, poses_of_table
from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.rotation import matrix_from_quaternion


class Tum(TrajectorySet):
    name = "TUM-dynamics"
    folder = "tum"
    num_published = 8

    def list_scenes(self) -> list[str]:
        return [path.parent.name for path in self.root.glob("*/groundtruth_90.txt")]

    def images(self, sequence: str) -> list[Path]:
        return sorted((self.root / sequence / "rgb_90").glob("*.png"))

    def poses(self, sequence: str) -> Tensor:
        table = torch.from_numpy(poses_of_table(self.root / sequence / "groundtruth_90.txt", 8))
        return invert_pose(torch.cat([matrix_from_quaternion(table[:, 4:]), table[:, 1:4, None]], -1))
