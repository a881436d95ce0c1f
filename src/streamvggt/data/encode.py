"""Write views as files of data sets. `decode.py` reads such files.

H×W pixels.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from streamvggt.data.decode import write_rgb
from streamvggt.data.transforms import image_array
from streamvggt.data.view import View
from streamvggt.geometry.camera import invert_pose


def write_image(path: Path, view: View, kind: str | None = None) -> None:
    """Write the image of a view. `kind` is ".jpg" or ".png" if the suffix differs from the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rgb(path, image_array(view.image), kind)


def write_png(path: Path, values: np.ndarray) -> None:
    """Write one channel of uint8 or uint16. (H, W)"""
    assert values.dtype in (np.uint8, np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", values)[1])


def depth_array(view: View) -> np.ndarray:
    """Return the depth, 0 if unknown. (H, W) float32"""
    return torch.where(view.valid, view.depth, 0).float().numpy()


def world_from_cam(view: View) -> np.ndarray:
    """Return the pose. (4, 4) float64"""
    pose = np.eye(4)
    pose[:3] = invert_pose(view.cam_from_world.double()).numpy()
    return pose


def millimeters(view: View) -> np.ndarray:
    """Return the depth in millimeters as in most 16-bit images; 0 if unknown or beyond 65.535 m. (H, W) uint16"""
    values = np.round(depth_array(view) * 1000)
    return np.where(values < 1 << 16, values, 0).astype(np.uint16)
