"""A model of COLMAP with its images, binary or text.

sparse/0/ or sparse/    cameras, images and points3D as .bin or .txt; frames and rigs are optional
images/<name>           as the model names them
depth/<name>.png        or .npy, .exr: depth of the image <name>, its suffix replaced; or, in a dense workspace,
stereo/depth_maps/<name>.geometric.bin, else <name>.photometric.bin

Only registered images count. COLMAP's poses are camera-from-world with the axes of OpenCV.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from streamvggt.data.decode import DataError
from streamvggt.data.own.frame import DEPTHS, Frame, checked_world_from_cam
from streamvggt.data.own.lens import Lens, checked_lens
from streamvggt.extras import require
from streamvggt.natural_order import natural_key

pycolmap = require("pycolmap", "export")

MODELS = ("sparse/0", "sparse", "colmap/sparse/0")
DEPTH_UNIT = 0.001
"""Scene units per step of a 16-bit depth image."""


def model_folder(folder: Path) -> Path | None:
    """The folder of the model of a scene; None if there is none."""
    found = (folder / name for name in MODELS)
    return next((path for path in found if any((path / f"cameras.{kind}").is_file() for kind in ("bin", "txt"))), None)


def read_colmap(folder: Path, depth_unit: float | None = None) -> list[Frame]:
    """Read the registered images of a scene in natural order of their names. The images themselves are not read.

    Raises:
        DataError: If the model is damaged, a camera is of another model or a file is missing.
    """
    model = model_folder(folder)
    try:
        reconstruction = pycolmap.Reconstruction(model)
    except (ValueError, IndexError, RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(
            f"{model}: expected cameras, images and points3D as .bin or .txt of COLMAP, got {reason!r}. "
            "Write the model again with colmap model_converter."
        ) from error
    lenses = {number: _lens(camera, model) for number, camera in reconstruction.cameras.items()}
    frames = [
        _frame(folder, image, lenses[image.camera_id], model, DEPTH_UNIT if depth_unit is None else depth_unit)
        for image in reconstruction.images.values()
        if image.has_pose
    ]
    return sorted(frames, key=lambda frame: natural_key(frame.name))


def _lens(camera: pycolmap.Camera, model: Path) -> Lens:
    where = f"{model}: camera {camera.camera_id}"
    return checked_lens(camera.model_name, (camera.width, camera.height), camera.params.tolist(), where)


def _frame(folder: Path, image: pycolmap.Image, lens: Lens, model: Path, depth_unit: float) -> Frame:
    where = f"{model}: image {image.name}"
    path = folder / "images" / image.name
    if not path.is_file():
        raise DataError(f"{where}: expected an image, got no file {path}. Restore it or remove it from the model.")
    cam_from_world = np.eye(4)
    cam_from_world[:3] = image.cam_from_world().matrix()
    checked_world_from_cam(cam_from_world, f"{where}, pose")
    return Frame(
        name=image.name,
        image=path,
        lens=lens,
        world_from_cam=checked_world_from_cam(np.linalg.inv(cam_from_world), f"{where}, pose"),
        depth=_depth(folder, image.name),
        depth_unit=depth_unit,
    )


def _depth(folder: Path, name: str) -> Path | None:
    bare = PurePosixPath(name).with_suffix("")
    candidates = [folder / "depth" / f"{bare}{suffix}" for suffix in DEPTHS]
    candidates += [folder / "stereo/depth_maps" / f"{name}.{kind}.bin" for kind in ("geometric", "photometric")]
    return next((path for path in candidates if path.is_file()), None)
