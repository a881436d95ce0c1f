"""Images with `transforms.json`, as nerfstudio and instant-ngp write it.

transforms.json     `frames` with file_path and transform_matrix, optional depth_file_path and mask_path; intrinsics
                    (fl_x fl_y cx cy w h, k1 k2 k3 p1 p2; or camera_angle_x) of all frames or of each frame
<file_path>         relative to the folder of transforms.json

Poses are world-from-camera with the axes of OpenGL: x right, y up, z backward. They become those of OpenCV here.

Reference: nerfstudio, docs/quickstart/data_conventions.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from streamvggt.data.decode import DataError, read_json
from streamvggt.data.own.frame import IMAGES, Frame, checked_world_from_cam
from streamvggt.data.own.lens import Lens, checked_lens
from streamvggt.natural_order import natural_key

FILE = "transforms.json"
DEPTH_UNIT = 0.001
"""Scene units per step of a 16-bit depth image, as nerfstudio's default."""
PERSPECTIVE = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
FISHEYE = "OPENCV_FISHEYE"
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])

Values = Mapping[str, Any]


def read_transforms(folder: Path, depth_unit: float | None = None) -> list[Frame]:
    """Read the frames of a scene in natural order of their files. The images themselves are not read.

    Raises:
        DataError: If a field is wrong or a file is missing. The message names the frame and the field.
    """
    path = folder / FILE
    shared = read_json(path)
    entries = shared.get("frames") if isinstance(shared, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: frames: expected a list of frames, got {str(entries)[:40]}.")
    unit = DEPTH_UNIT if depth_unit is None else depth_unit
    frames = [_frame(folder, shared, entry, f"{path}: frames[{i}]", unit) for i, entry in enumerate(entries)]
    return sorted(frames, key=lambda frame: natural_key(frame.name))


def _frame(folder: Path, shared: Values, entry: Values, where: str, depth_unit: float) -> Frame:
    image = _image(folder, entry, where)
    return Frame(
        name=str(entry["file_path"]),
        image=image,
        lens=_lens(ChainMap(entry, shared), image, where),
        world_from_cam=checked_world_from_cam(entry.get("transform_matrix"), f"{where}.transform_matrix")
        @ OPENCV_FROM_OPENGL,
        depth=_file(folder, entry, "depth_file_path", where),
        depth_unit=depth_unit,
        mask=_file(folder, entry, "mask_path", where),
    )


def _lens(values: Values, image: Path, where: str) -> Lens:
    model = values.get("camera_model", "OPENCV")
    if model not in (*PERSPECTIVE, FISHEYE):
        raise DataError(
            f"{where}.camera_model: expected {', '.join((*PERSPECTIVE, FISHEYE))}, got {model!r}. "
            "Render or undistort the images to one of these models."
        )
    if "w" in values and "h" in values:
        width, height = (_number(values, key, where) for key in "wh")
    else:
        with Image.open(image) as opened:
            width, height = opened.size
    if "fl_x" in values:
        fx = _number(values, "fl_x", where)
    elif "camera_angle_x" in values:
        fx = width / 2 / math.tan(_number(values, "camera_angle_x", where) / 2)
    else:
        raise DataError(f"{where}.fl_x: expected fl_x or camera_angle_x, got neither. Add the focal length in pixels.")
    fy = _number(values, "fl_y", where, fx)
    cx, cy = _number(values, "cx", where, width / 2), _number(values, "cy", where, height / 2)
    k1, k2, k3, k4, p1, p2 = (_number(values, key, where, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model == FISHEYE:
        return checked_lens(FISHEYE, (width, height), (fx, fy, cx, cy, k1, k2, k3, k4), where)
    if k4:
        raise DataError(f"{where}.k4: expected 0 for {model}, got {k4:g}. Fit at most k1, k2, k3, p1 and p2.")
    return checked_lens("FULL_OPENCV", (width, height), (fx, fy, cx, cy, k1, k2, p1, p2, k3, 0, 0, 0), where)


def _number(values: Values, key: str, where: str, default: float | None = None) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}.{key}: expected a finite number, got {value!r}.")
    return value


def _image(folder: Path, entry: Values, where: str) -> Path:
    name = entry.get("file_path")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}.file_path: expected the path of an image, got {name!r}.")
    path = folder / name
    candidates = [path] if path.suffix else [path.with_name(path.name + suffix) for suffix in IMAGES]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise DataError(f"{where}.file_path: expected an image, got no file {path}. Restore it or remove the frame.")
    return found


def _file(folder: Path, entry: Values, key: str, where: str) -> Path | None:
    name = entry.get(key)
    if name is None:
        return None
    if not isinstance(name, str) or not (folder / name).is_file():
        raise DataError(f"{where}.{key}: expected a file, got {name!r} in {folder}. Restore it or remove the field.")
    return folder / name
