"""NYU Depth v2 (Silberman et al., ECCV 2012): rooms, single images, as prepared.

nyu_v2/val/nyu_images/*.png
nyu_v2/val/nyu_depths/*.npy    (H, W), metres
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData, read_npy
from streamvggt.evaluation.depth_metrics import Rules
from streamvggt.evaluation.readers.depth_set import DepthSet, Pair, files, pair_by_name


class Nyu(DepthSet):
    """One scene, "val": images that have nothing to do with each other."""

    name = "NYU-v2"
    folders = ("nyu_v2", "nyu-v2")
    rules = Rules()
    num_published = (1, 654)
    is_flat = True

    def list_scenes(self) -> dict[str, list[Pair]]:
        val = self.root / "val"
        return {"val": pair_by_name(files(val / "nyu_images", ".png"), files(val / "nyu_depths", ".npy"))}

    def read_depth(self, path: Path) -> np.ndarray:
        depth = read_npy(path)
        if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
            raise BadData(f"{path}: floating-point depth (H, W) was expected, it is {depth.dtype} {depth.shape}")
        return depth.astype(np.float32)
