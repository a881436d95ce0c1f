"""Read cameras.txt and images.txt of COLMAP. The center of the first pixel is (0.5, 0.5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from streamvggt.data.decode import DataError, read_lines


@dataclass(frozen=True)
class ColmapCamera:
    """Camera of a COLMAP model. `parameters` have COLMAP's order for the camera model, in pixels."""

    model: str
    width: int
    height: int
    parameters: np.ndarray


@dataclass(frozen=True)
class ColmapImage:
    """Image of a COLMAP model. `world_from_cam` has OpenCV axes. (4, 4)"""

    name: str
    camera: ColmapCamera
    world_from_cam: np.ndarray


def read_colmap(folder: Path) -> list[ColmapImage]:
    """Read the images of a text model with their cameras and poses, by name.

    Raises:
        DataError: If a line does not have COLMAP's format.
    """
    cameras = {}
    line = ""
    try:
        for line in read_lines(folder / "cameras.txt"):
            number, model, width, height, *parameters = line.split()
            cameras[number] = ColmapCamera(model, int(width), int(height), np.array(parameters, np.float64))
        images = []
        # Every second line holds the image's points and may be empty.
        for line in read_lines(folder / "images.txt")[::2]:
            _, *numbers, camera, name = line.split(maxsplit=9)
            qw, qx, qy, qz, *translation = map(float, numbers)
            cam_from_world = np.eye(4)
            cam_from_world[:3, :3] = Rotation.from_quat([qx, qy, qz, qw]).as_matrix()
            cam_from_world[:3, 3] = translation
            images.append(ColmapImage(name, cameras[camera], np.linalg.inv(cam_from_world)))
    except (ValueError, KeyError) as error:
        raise DataError(f"{folder}: not as COLMAP writes text: {line[:60]!r} ({error})") from error
    return sorted(images, key=lambda image: image.name)
