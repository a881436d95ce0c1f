"""RAW is the download of https://kaldir.vc.in.tum.de/scannetpp, with these assets:

RAW/data/<scene>/scans/mesh_aligned_0.05.ply
                 dslr/resized_images/*.JPG  dslr/resized_anon_masks/*.png  dslr/colmap/cameras.txt  images.txt
                 iphone/rgb/*.jpg  iphone/rgb_masks/*.png  iphone/colmap/cameras.txt  images.txt

The phone's images come out of its video with the data set's own toolkit (python -m iphone.prepare_iphone_data); a scene
may lack iphone or dslr. Images are undistorted and made to cover 920×690 pixels; their
depth is that of the mesh from 0.05 to 20 m, and none where the masks hide people. Which frames see the same is found
from their depth: no list of pairs is needed. Needs the package embreex.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from streamvggt.data.decode import BadData, read_colour, read_mask
from streamvggt.data.encode import millimetres, write_image, write_png
from streamvggt.data.prepare._colmap import ColmapCamera, ColmapImage, read_colmap
from streamvggt.data.prepare._covisibility import covisible
from streamvggt.data.prepare._raycast import Raycaster
from streamvggt.data.prepare._runner import Skip
from streamvggt.data.prepare._scene_table import SceneTable, write_scene_list
from streamvggt.data.source import checked_view
from streamvggt.data.sources.scannetpp import TABLE, ScanNetpp, principal_point_excess
from streamvggt.data.transforms import resize
from streamvggt.data.view import View

FOLDER = ScanNetpp.folder
MESH = "scans/mesh_aligned_0.05.ply"
SIZE = 920, 690
NEAREST, FARTHEST = 0.05, 20  # metres
ORIGIN = np.zeros(3), np.zeros(3)  # rotation and translation of a camera in its own coordinates


def scenes(raw: Path) -> list[str]:
    return sorted({mesh.parents[1].name for root in (raw, raw / "data") for mesh in root.glob(f"*/{MESH}")})


def prepare(raw: Path, scene: str, folder: Path) -> None:
    source = next(path for root in (raw, raw / "data") if ((path := root / scene) / MESH).exists())
    mesh = Raycaster.load(source / MESH)
    frames = SceneTable(stored_intrinsics, covisible)
    for image, picture, mask in _pictures(source):
        name = Path(image.name).stem
        view = _view(image, picture, mask, mesh)
        write_frame(folder, name, view)
        frames.add(name, view)
    if not len(frames):
        raise Skip("it has no images with poses")
    frames.write(folder / TABLE)


def finish(raw: Path, out: Path) -> None:
    write_scene_list(out / "all_metadata.npz", TABLE)


def write_frame(folder: Path, name: str, view: View) -> None:
    write_image(folder / f"images/{name}.jpg", view)
    write_png(folder / f"depth/{name}.png", millimetres(view))


def stored_intrinsics(name: str, view: View) -> np.ndarray:
    """With the excess that the set has always had; its source takes it off. (3, 3)"""
    intrinsics = view.intrinsics.double().numpy()
    intrinsics[:2, 2] += principal_point_excess(name, view.depth.shape[0])
    return intrinsics


def _pictures(source: Path) -> Iterator[tuple[ColmapImage, Path, Path]]:
    """Images with poses, their files and the files of their masks; the still camera's first."""
    places = {"dslr": ("resized_images", "resized_anon_masks"), "iphone": ("rgb", "rgb_masks")}
    for device, (pictures, masks) in places.items():
        folder = source / device
        if not (folder / "colmap/images.txt").exists():
            continue
        if not (folder / pictures).is_dir():
            raise FileNotFoundError(
                f"{folder / pictures} is not there, but poses of its images are: extract the images with the data "
                f"set's toolkit, or move {folder} away to do without them"
            )
        for image in read_colmap(folder / "colmap"):
            yield image, folder / pictures / image.name, (folder / masks / image.name).with_suffix(".png")


def _view(image: ColmapImage, picture: Path, mask: Path, mesh: Raycaster) -> View:
    colours = read_colour(picture)
    height, width = image.camera.height, image.camera.width
    if colours.shape[:2] != (height, width):
        raise BadData(f"{picture} has {colours.shape[:2]} pixels, cameras.txt says {(height, width)}")
    intrinsics, x, y = undistortion(image.camera)
    seen = cv2.remap(read_mask(mask), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    view = checked_view(
        picture,
        image=cv2.remap(colours, x, y, cv2.INTER_CUBIC),
        depth=seen == 255,
        intrinsics=intrinsics,
        world_from_cam=image.world_from_cam,
        is_metric=True,
    )
    scale = max(SIZE[0] / width, SIZE[1] / height)
    view = resize(view, (round(scale * width), round(scale * height)))
    depth = torch.from_numpy(mesh.depth(view.intrinsics.double().numpy(), image.world_from_cam, view.depth.shape))
    valid = view.valid & (depth >= NEAREST) & (depth <= FARTHEST)
    return replace(view, depth=torch.where(valid, depth, 0), valid=valid)


def undistortion(camera: ColmapCamera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A pinhole camera that sees as much as it can of what another saw and nothing else.

    Returns:
        intrinsics: of a picture of the same size, square pixels, principal point in its middle. (3, 3)
        x, y: where in the other's picture each of its pixels is; the first pixel's centre is (0, 0). (H, W) float32
    """
    if camera.model not in ("OPENCV_FISHEYE", "OPENCV"):
        raise BadData(f"cameras of the model {camera.model} are not known; OPENCV_FISHEYE and OPENCV are")
    is_fisheye = camera.model == "OPENCV_FISHEYE"
    fx, fy, cx, cy, *bend = camera.parameters
    K = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    bend = np.array(bend)
    width, height = camera.width, camera.height
    middle = np.array([width - 1, height - 1]) / 2
    along_x, along_y = np.arange(width), np.arange(height)
    border = np.concatenate(
        [np.stack(np.broadcast_arrays(along_x, y), -1) for y in (0, height - 1)]
        + [np.stack(np.broadcast_arrays(x, along_y), -1) for x in (0, width - 1)]
    )  # (N, 2)

    def sees_nothing_else(focal: float) -> bool:
        flat = ((border - middle) / focal)[:, None]  # (N, 1, 2)
        if is_fisheye:
            seen = cv2.fisheye.distortPoints(flat, K, bend)
        else:
            seen, _ = cv2.projectPoints(np.pad(flat, ((0, 0), (0, 0), (0, 1)), constant_values=1), *ORIGIN, K, bend)
        return bool((np.abs(seen[:, 0] - middle) <= middle).all())

    too_wide, focal = 0.1 * fx, 10 * fx
    for _ in range(40):
        between = (too_wide + focal) / 2
        too_wide, focal = (too_wide, between) if sees_nothing_else(between) else (between, focal)
    straight = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    maps = cv2.fisheye.initUndistortRectifyMap if is_fisheye else cv2.initUndistortRectifyMap
    return straight, *maps(K, bend, np.eye(3), straight, (width, height), cv2.CV_32FC1)
