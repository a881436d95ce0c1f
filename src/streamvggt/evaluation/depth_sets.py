"""Data sets with ground-truth depth: options and sizes of the published results."""

from __future__ import annotations

from dataclasses import dataclass

from streamvggt.datasets._depth_set import DepthSet
from streamvggt.datasets.bonn import Bonn
from streamvggt.datasets.kitti import Kitti
from streamvggt.datasets.nyu import Nyu
from streamvggt.datasets.scannetv2 import ScanNetDepth
from streamvggt.datasets.sintel import Sintel
from streamvggt.evaluation.depth_metrics import DepthOptions

DEPTH_SETS: dict[str, type[DepthSet]] = {
    "sintel": Sintel,
    "bonn": Bonn,
    "kitti": Kitti,
    "nyu": Nyu,
    "scannet": ScanNetDepth,
}


@dataclass(frozen=True)
class Published:
    """Published evaluation of a data set.

    Attributes:
        rules: Options of the evaluation.
        num_scenes: Number of scenes. None if it is not published.
        num_frames: Number of frames. None if it is not published.
    """

    rules: DepthOptions
    num_scenes: int
    num_frames: int | None


PUBLISHED: dict[type[DepthSet], Published] = {
    Sintel: Published(DepthOptions(max_depth=70, clip_aligned=(None, 70)), 23, 1064),
    Bonn: Published(DepthOptions(max_depth=70), 5, 550),
    Kitti: Published(DepthOptions(), 13, 1269),
    Nyu: Published(DepthOptions(), 1, 654),
    ScanNetDepth: Published(DepthOptions(), 100, None),
}


def published(reader: DepthSet) -> Published:
    return PUBLISHED[type(reader)]
