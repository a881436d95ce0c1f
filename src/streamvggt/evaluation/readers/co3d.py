"""CO3Dv2 (Reizenstein et al., ICCV 2021): objects filmed from all around, with cameras from COLMAP.

co3d_dir/<category>/<sequence>/images/frame%06d.jpg    as downloaded
co3d_anno_dir/<category>_test.jgz                      as prepared (streamvggt data prepare co3d_annotations): JSON,
                                                       gzipped: {sequence: [{filepath, R, T, focal_length, …}]}
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamvggt.data.decode import BadData
from streamvggt.evaluation.readers.trajectory_set import TrajectorySet

CATEGORIES = (
    *("apple", "backpack", "banana", "baseballbat", "baseballglove", "bench", "bicycle", "bottle", "bowl"),
    *("broccoli", "cake", "car", "carrot", "cellphone", "chair", "cup", "donut", "hairdryer", "handbag", "hydrant"),
    *("keyboard", "laptop", "microwave", "motorcycle", "mouse", "orange", "parkingmeter", "pizza", "plant"),
    *("stopsign", "teddybear", "toaster", "toilet", "toybus", "toyplane", "toytrain", "toytruck", "tv", "umbrella"),
    *("vase", "wineglass"),
)
"""The 41 "seen" ones, in the order in which frames are drawn."""

ANNOTATIONS = "co3d_v2_annotations"

Frame = dict[str, Any]
"""An annotation: filepath, R, T, focal_length, principal_point."""


def read_annotations(folder: Path, category: str) -> dict[str, list[Frame]] | None:
    """Sequences of a category's test split; None: there is no such file.

    Raises:
        BadData: it is damaged.
    """
    path = folder / f"{category}_test.jgz"
    if not path.exists():
        return None
    try:
        sequences = json.loads(gzip.decompress(path.read_bytes()))
        if not all({"filepath", "R", "T"} <= frame.keys() for frames in sequences.values() for frame in frames):
            raise ValueError("a frame has no filepath, R or T")
        return sequences
    except (OSError, EOFError, zlib.error, ValueError, AttributeError, TypeError) as error:
        raise BadData(
            f"{path} is damaged, or not as `streamvggt data prepare co3d_annotations` writes it ({error})"
        ) from error


class Co3dPoses(TrajectorySet):
    """The whole test split, of all categories that are there; annotations lie beside the images."""

    name = "CO3Dv2"
    folder = "co3d_v2"
    num_published = 0

    def __init__(self, root: str | Path):
        annotations = Path(root) / ANNOTATIONS
        self._frames = {
            f"{category}/{sequence}": frames
            for category in CATEGORIES
            for sequence, frames in (read_annotations(annotations, category) or {}).items()
        }
        if not self._frames and (Path(root) / self.folder).is_dir():
            raise FileNotFoundError(
                f"{annotations} holds no annotations: make them with "
                f"`streamvggt data prepare co3d_annotations {Path(root) / self.folder} {root}`"
            )
        super().__init__(root)

    def list_scenes(self) -> list[str]:
        return list(self._frames)

    def images(self, sequence: str) -> list[Path]:
        return [self.root / frame["filepath"] for frame in self._frames[sequence]]

    def poses(self, sequence: str) -> Tensor:
        return cameras_of(self._frames[sequence])


def has_far_camera(frames: list[Frame]) -> bool:
    """As published: the sum of a translation tells an absurd one."""
    return any(sum(frame["T"]) > 1e5 for frame in frames)


def cameras_of(frames: list[Frame]) -> Tensor:
    """Camera-from-world poses, float64. (S, 3, 4)"""
    R = torch.tensor([frame["R"] for frame in frames], dtype=torch.float64)
    T = torch.tensor([frame["T"] for frame in frames], dtype=torch.float64)
    return opencv_from_pytorch3d(R, T)


def opencv_from_pytorch3d(R: Tensor, T: Tensor) -> Tensor:
    """PyTorch3D's cameras in OpenCV's convention: x left, y up and row vectors become x right, y down and columns.

    Args:
        R: (..., 3, 3)
        T: (..., 3)

    Returns:
        [R | t], camera-from-world. (..., 3, 4)
    """
    flip = torch.tensor([-1, -1, 1], dtype=R.dtype)
    return torch.cat([(R * flip).mT, (T * flip)[..., None]], -1)
