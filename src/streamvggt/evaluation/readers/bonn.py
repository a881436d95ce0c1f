"""Bonn RGB-D Dynamic (Palazzolo et al., IROS 2019): people and balloons in front of a depth camera, as prepared.

bonn/rgbd_bonn_dataset/rgbd_bonn_<sequence>/rgb_110/*.png
bonn/rgbd_bonn_dataset/rgbd_bonn_<sequence>/depth_110/*.png    uint16, 1/5000 m, 0 unknown
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.evaluation.depth_metrics import Rules
from streamvggt.evaluation.readers.depth_set import DepthSet, Pair, files, pair_by_order, read_fixed_point

SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
PREFIX = "rgbd_bonn_"
STEPS_PER_METRE = 5000


class Bonn(DepthSet):
    """Images and depth have times of their own as names; they are paired by their place, as published."""

    name = "Bonn"
    folders = ("bonn",)
    rules = Rules(max_depth=70)
    num_published = (5, 550)

    def list_scenes(self) -> dict[str, list[Pair]]:
        scenes = {}
        for sequence in SEQUENCES:
            folder = self.root / "rgbd_bonn_dataset" / f"{PREFIX}{sequence}"
            if folder.is_dir():
                scenes[sequence] = pair_by_order(files(folder / "rgb_110", ".png"), files(folder / "depth_110", ".png"))
        return scenes

    def read_depth(self, path: Path) -> np.ndarray:
        return read_fixed_point(path, STEPS_PER_METRE)
