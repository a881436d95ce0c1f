"""OmniObject3D (Wu et al., arXiv 2301.07525): scanned things, rendered before white from all around.

ROOT/omniobject3d/scale.json                  {object: units of its renderings per millimeter}
                  <object>/rgb/r_%d.png
                           depth/r_%d.npy     float32, units of its renderings; 0 beside the thing
                           cam/r_%d.npz       intrinsics (3, 3), pose (4, 4) world-from-camera, the same units

RAW  the Blender renderings
     [<category>/]<object>/render/images/r_%d.png
                                  depths/r_%d*.exr
                                  transforms.json   camera_angle_x; frames: file_path, transform_matrix

`scale.json` is a separate download: copy it into the result (see docs/data.md).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError, decoding, read_exr, read_json, write_rgb
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips
from streamvggt.image_files import open_image

FOLDER = "omniobject3d"
FILES = FrameFiles("rgb/{}.png", "depth/{}.npy", CameraFile("cam/{}.npz"))
SCALES = "scale.json"
NO_HIT_DEPTH = 65504  # the largest number of 16 bits, which renderers write where there is nothing
OPENCV_FROM_BLENDER = np.diag([1.0, -1.0, -1.0, 1.0])


class OmniObject3D(DatasetReader):
    """OmniObject3D, converted to meters by `scale.json`. As published, training does not use it as metric."""

    name, folder, is_metric = "OmniObject3D", FOLDER, False
    view_sampler = ClipSampler(max_interval=100, video_prob=0.0)

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        if not listing.exists(self.root / SCALES):
            raise FileNotFoundError(
                f"OmniObject3D: {self.root / SCALES} is missing. It contains the scale of every object and is a "
                "separate download, see docs/data.md"
            )
        return {thing: sorted(frames, key=first_number) for thing, frames in FILES.scenes(listing, self.root).items()}

    def read(self, scene: str, frame: str) -> View:
        stored = FILES.read(self.root / scene, frame)
        meters = 1 / (1000 * self.scale(scene))
        pose = stored.world_from_cam.astype(float)
        pose[:3, 3] *= meters
        depth = np.where(stored.depth < NO_HIT_DEPTH, stored.depth, 0) * meters
        return replace(stored, depth=depth, world_from_cam=pose).view(self.is_metric)

    def scale(self, thing: str) -> float:
        """Return the units per millimeter of an object.

        Raises:
            DataError: If the scale is not known.
        """
        with decoding(self.root / SCALES, "{object: units per millimeter}"):
            scale = self._scales.get(thing)
        if not isinstance(scale, float | int) or not scale > 0:
            raise DataError(f"{self.root / SCALES}: a positive scale of {thing!r} was expected, it is {scale}")
        return scale

    @cached_property
    def _scales(self) -> dict[str, float]:
        return read_json(self.root / SCALES)


def first_number(name: str) -> tuple[int, str]:
    """Return the first number in a name, so that r_2 sorts before r_10."""
    number = re.search(r"\d+", name)
    return int(number.group()) if number else -1, name


def raw_scenes(raw: Path) -> list[str]:
    return sorted(render.parent.name for depth in ("*", "*/*") for render in raw.glob(f"{depth}/render"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    render = next(render for depth in ("", "*/") for render in raw.glob(f"{depth}{scene}/render"))
    (folder / "rgb").mkdir()
    angle, poses = read_cameras(render / "transforms.json")
    depths = sorted((render / "depths").glob("*.exr"))
    for name, pose in poses.items():
        image = composite_on_white(render / "images" / f"{name}.png")
        depth = read_exr(depth_file(name, depths, render))
        if depth.shape != image.shape[:2]:
            raise DataError(f"{render}: image {name} has {image.shape[:2]} pixels, its depth {depth.shape}")
        write_rgb(FILES.image_path(folder, name), image)
        FILES.write_depth(folder, name, np.where(depth < NO_HIT_DEPTH, depth, 0))
        FILES.camera.write(folder, name, intrinsics_from_angle(angle, *depth.shape), pose @ OPENCV_FROM_BLENDER)


def read_cameras(path: Path) -> tuple[float, dict[str, np.ndarray]]:
    """Read the field of view over the width (radians) and the poses by image, world-from-camera of Blender. (4, 4)"""
    content = read_json(path)
    with decoding(path, "camera_angle_x, and frames with file_path and transform_matrix"):
        poses = {
            Path(frame["file_path"]).stem: np.array(frame["transform_matrix"], np.float64).reshape(4, 4)
            for frame in content["frames"]
        }
        angle = float(content["camera_angle_x"])
        if not 0 < angle < math.pi:
            raise ValueError(f"camera_angle_x {angle}")
        return angle, poses


def composite_on_white(path: Path) -> np.ndarray:
    """Composite an RGBA image on white. (H, W, 3) uint8"""
    with open_image(path) as image:
        image = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def depth_file(name: str, depths: list[Path], render: Path) -> Path:
    """Find the depth file of an image. Blender appends words and a frame number: r_1_depth0001.exr."""
    for path in depths:
        if re.fullmatch(rf"{re.escape(name)}(\D.*)?", path.stem):
            return path
    raise DataError(f"{render / 'depths'}: no {name}*.exr in it")


def intrinsics_from_angle(angle: float, height: int, width: int) -> np.ndarray:
    """Return intrinsics with square pixels and the principal point in the image center. (3, 3)"""
    focal = width / 2 / math.tan(angle / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures. Each scene has a different unit: 0.004, 0.008, … units per millimeter."""
    things = {f"anise_{number:03d}": 0.004 * number for number in range(1, len(clips) + 1)}
    clips = [[scaled(view, 1000 * scale) for view in clip] for clip, scale in zip(clips, things.values(), strict=True)]
    written = write_clips(FILES, out / FOLDER, clips, things, "r_{}")
    (out / FOLDER / SCALES).write_text(json.dumps(things), encoding="utf-8")
    return written


def scaled(view: View, units: float) -> View:
    """Return the view in another unit of length."""
    pose = view.cam_from_world.clone()
    pose[:, 3] *= units
    return replace(view, depth=view.depth * units, cam_from_world=pose)
