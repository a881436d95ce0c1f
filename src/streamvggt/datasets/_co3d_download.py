"""CO3Dv2 as downloaded: annotations, lists of sequences, and cameras in PyTorch3D's convention.

<category>/frame_annotations.jgz, sequence_annotations.jgz       gzipped JSON
           set_lists/set_lists_fewview_train|dev|test.json       {subset: [[sequence, frame number, image], …]}
           <sequence>/images/*.jpg  depths/*.png  masks/*.png  depth_masks/*.png

The single-sequence subset of the download has no few-view lists.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.decode import DataError
from streamvggt.data.view import View

FRAMES, SEQUENCES = "frame_annotations.jgz", "sequence_annotations.jgz"
FEW_VIEW_LIST = "set_lists/set_lists_fewview_{}.json"
MIN_QUALITY = 0.5
"""Minimum viewpoint quality of a sequence."""
FLIP = np.diag([-1.0, -1.0, 1.0])  # PyTorch3D's cameras have x left, y up


def read_jgz(path: Path) -> Any:
    """Read gzipped JSON.

    Raises:
        DataError: If the file is damaged.
    """
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (EOFError, zlib.error, ValueError, gzip.BadGzipFile, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); download it again") from error


def write_jgz(path: Path, content: Any) -> None:
    """Write gzipped JSON without a time stamp, so that equal content gives equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))


def good_sequences(annotations: Sequence[Mapping[str, Any]], min_quality: float = MIN_QUALITY) -> set[str]:
    """Return the sequences with good cameras. A sequence without a quality score has none."""
    return {one["sequence_name"] for one in annotations if (one["viewpoint_quality_score"] or 0) > min_quality}


def pytorch3d_to_opencv(R: Tensor, T: Tensor) -> Tensor:
    """Convert PyTorch3D's cameras: x left, y up and row vectors become x right, y down and columns.

    Args:
        R: (..., 3, 3)
        T: (..., 3)

    Returns:
        [R | t], camera-from-world. (..., 3, 4)
    """
    flip = torch.from_numpy(FLIP.diagonal().copy()).to(R.dtype)
    return torch.cat([(R * flip).mT, (T * flip)[..., None]], -1)


def get_cameras(frames: Sequence[Mapping[str, Any]]) -> Tensor:
    """Return camera-from-world poses of annotations with R and T, float64. (S, 3, 4)"""
    R, T = (torch.tensor([frame[name] for frame in frames], dtype=torch.float64) for name in "RT")
    return pytorch3d_to_opencv(R, T)


def half_units(image_format: str, width: int, height: int) -> np.ndarray:
    """Return the pixels per unit of a camera's numbers along x and y. (2,)

    Raises:
        ValueError: If the format is unknown.
    """
    half = np.array([width, height]) / 2
    units = {"ndc_norm_image_bounds": half, "ndc_isotropic": np.full(2, half.min())}
    if image_format not in units:
        raise ValueError(f"cameras in the format {image_format!r} are not known")
    return units[image_format]


def camera(viewpoint: Mapping[str, Any], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Convert PyTorch3D's camera of an annotation to OpenCV.

    It projects row vectors, x·R + T, with x to the left and y upwards, into coordinates that are 1 at the borders of
    the image or of its largest square, whose origin is the middle of the image.

    Args:
        viewpoint: R, T, focal_length, principal_point, intrinsics_format of an annotation.
        size: H, W of the image.

    Returns:
        intrinsics (3, 3) and cam_from_world (4, 4)
    """
    height, width = size
    half = half_units(viewpoint["intrinsics_format"], width, height)
    focal = np.array(viewpoint["focal_length"]) * half
    # The middle of the image is W/2 from its border, but W/2 - 1/2 from the first pixel's center.
    center = np.array([width, height]) / 2 - np.array(viewpoint["principal_point"]) * half - 0.5
    intrinsics = np.array([[focal[0], 0, center[0]], [0, focal[1], center[1]], [0, 0, 1]])
    cam_from_world = np.eye(4)
    cam_from_world[:3] = get_cameras([viewpoint])[0].numpy()
    return intrinsics, cam_from_world


def get_viewpoint(view: View, image_format: str = "ndc_isotropic") -> dict[str, Any]:
    """Convert the camera of a view to the fields of a CO3D annotation."""
    pose, K = view.cam_from_world.double().numpy(), view.intrinsics.double().numpy()
    height, width = view.depth.shape
    half = half_units(image_format, width, height)
    return {
        "R": (FLIP @ pose[:, :3]).T.tolist(),
        "T": (FLIP @ pose[:, 3]).tolist(),
        "focal_length": (K.diagonal()[:2] / half).tolist(),
        "principal_point": ((np.array([width, height]) / 2 - 0.5 - K[:2, 2]) / half).tolist(),
        "intrinsics_format": image_format,
    }
