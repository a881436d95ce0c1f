"""OmniObject3D, the Blender renderings. RAW:

[<category>/]<object>/render/images/r_%d.png
                             depths/r_%d*.exr
                             transforms.json   camera_angle_x; frames: file_path, transform_matrix

`scale.json` is no part of the download: put it into the result (docs/data.md says where to get it).
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from PIL import Image

from streamvggt.data.decode import BadData, read_exr, read_json, write_colour
from streamvggt.data.sources.omniobject3d import NOTHING, OmniObject3D
from streamvggt.image_files import open_image

FOLDER = OmniObject3D.folder
OPENCV_FROM_BLENDER = np.diag([1.0, -1.0, -1.0, 1.0])
"""Blender's cameras look along -z, with y up."""


def scenes(raw: Path) -> list[str]:
    return sorted(render.parent.name for depth in ("*", "*/*") for render in raw.glob(f"{depth}/render"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    render = next(render for depth in ("", "*/") for render in raw.glob(f"{depth}{scene}/render"))
    for part in ("rgb", "depth", "cam"):
        (folder / part).mkdir()
    transforms = read_json(render / "transforms.json")
    depths = sorted((render / "depths").glob("*.exr"))
    for frame in transforms["frames"]:
        name = Path(frame["file_path"]).stem
        image = on_white(render / "images" / f"{name}.png")
        depth = read_exr(depth_file(name, depths, render))
        if depth.shape != image.shape[:2]:
            raise BadData(f"{render}: image {name} has {image.shape[:2]} pixels, its depth {depth.shape}")
        write_colour(folder / "rgb" / f"{name}.png", image)
        np.save(folder / "depth" / f"{name}.npy", np.where(depth < NOTHING, depth, np.float32(0)))
        np.savez(
            folder / "cam" / f"{name}.npz",
            intrinsics=intrinsics_from_angle(transforms["camera_angle_x"], *depth.shape).astype(np.float32),
            pose=(np.array(frame["transform_matrix"]) @ OPENCV_FROM_BLENDER).astype(np.float32),
        )


def on_white(path: Path) -> np.ndarray:
    """(H, W, 3) uint8"""
    with open_image(path) as image:
        image = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def depth_file(name: str, depths: list[Path], render: Path) -> Path:
    """Blender adds words and its own frame's number to the name: r_1_depth0001.exr."""
    for path in depths:
        if re.fullmatch(rf"{re.escape(name)}(\D.*)?", path.stem):
            return path
    raise BadData(f"{render / 'depths'}: no {name}*.exr in it")


def intrinsics_from_angle(angle: float, height: int, width: int) -> np.ndarray:
    """Square pixels, the principal point in the middle of the image, which is half a pixel before (W/2, H/2)."""
    focal = width / 2 / math.tan(angle / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
