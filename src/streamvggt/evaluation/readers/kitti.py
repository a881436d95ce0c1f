"""KITTI depth (Uhrig et al., 3DV 2017): drives with accumulated laser scans, as prepared.

kitti/depth_selection/val_selection_cropped/
    image_gathered/<drive>_02/%010d.png
    groundtruth_depth_gathered/<drive>_02/%010d.png    uint16, 1/256 m, 0 unknown
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.evaluation.depth_metrics import Rules
from streamvggt.evaluation.readers.depth_set import DepthSet, Pair, files, pair_by_name, read_fixed_point, subfolders

STEPS_PER_METRE = 256


class Kitti(DepthSet):
    name = "KITTI"
    folders = ("kitti/depth_selection/val_selection_cropped",)
    rules = Rules()
    num_published = (13, 1269)

    def list_scenes(self) -> dict[str, list[Pair]]:
        depths = self.root / "groundtruth_depth_gathered"
        return {
            folder.name: pair_by_name(files(folder, ".png"), files(depths / folder.name, ".png"))
            for folder in subfolders(self.root / "image_gathered")
        }

    def read_depth(self, path: Path) -> np.ndarray:
        return read_fixed_point(path, STEPS_PER_METRE)
