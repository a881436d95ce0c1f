"""Virtual KITTI 2. RAW: the archives rgb, depth and textgt, unpacked into one folder

<Scene>/<variation>/frames/rgb/Camera_0|Camera_1/rgb_%05d.jpg
                    frames/depth/Camera_0|Camera_1/depth_%05d.png    uint16, centimetres
                    intrinsic.txt                                     frame, camera, fx, fy, cx, cy
                    extrinsic.txt                                     frame, camera, camera-from-world 4×4
"""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData
from streamvggt.data.sources.virtual_kitti2 import VirtualKitti2

FOLDER = VirtualKitti2.folder


def scenes(raw: Path) -> list[str]:
    folders = sorted(raw.glob("*/*/frames/rgb/Camera_*"))
    return [f"{folder.parents[3].name}/{folder.parents[2].name}/{folder.name}" for folder in folders]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    town, variation, camera = scene.split("/")
    place, number = raw / town / variation, int(camera.removeprefix("Camera_"))
    intrinsics, extrinsics = table(place / "intrinsic.txt", 4), table(place / "extrinsic.txt", 16)
    for picture in sorted((place / "frames/rgb" / camera).glob("rgb_*.jpg")):
        frame = picture.stem.removeprefix("rgb_")
        key = int(frame), number
        if key not in intrinsics or key not in extrinsics:
            raise BadData(f"{place}: intrinsic.txt or extrinsic.txt has no line of frame {key[0]}, camera {number}")
        fx, fy, cx, cy = intrinsics[key]
        shutil.copyfile(picture, folder / f"{frame}_rgb.jpg")
        shutil.copyfile(place / "frames/depth" / camera / f"depth_{frame}.png", folder / f"{frame}_depth.png")
        np.savez(
            folder / f"{frame}_cam.npz",
            camera_intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32),
            camera_pose=np.linalg.inv(extrinsics[key].reshape(4, 4)).astype(np.float32),
        )


@lru_cache(maxsize=4)
def table(path: Path, num_values: int) -> dict[tuple[int, int], np.ndarray]:
    """Values by frame and camera of a table with a line of titles."""
    try:
        rows = np.loadtxt(path, skiprows=1, ndmin=2)
    except ValueError as error:
        raise BadData(f"{path}: no table of numbers ({error})") from error
    if rows.shape[1] != 2 + num_values:
        raise BadData(f"{path}: {2 + num_values} columns were expected, it has {rows.shape[1]}")
    return {(int(row[0]), int(row[1])): row[2:] for row in rows}
