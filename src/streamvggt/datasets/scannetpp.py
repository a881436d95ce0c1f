"""ScanNet++ (Yeshwanth et al., arXiv 2308.11417): rooms seen by a still camera and a phone; depth of a laser scan.

ROOT/processed_scannetpp/all_metadata.npz                  scenes
                         <scene>/new_scene_metadata.npz    see _scene_table.py; images are DSC##### (still camera) and
                                                           frame_###### (phone)
                                 images/<name>.jpg         covers 920×690
                                 depth/<name>.png          uint16, millimeters

RAW is the download of https://kaldir.vc.in.tum.de/scannetpp, with these assets:
     data/<scene>/scans/mesh_aligned_0.05.ply
                  dslr/resized_images/*.JPG  dslr/resized_anon_masks/*.png  dslr/colmap/cameras.txt  images.txt
                  iphone/rgb/*.jpg  iphone/rgb_masks/*.png  iphone/colmap/cameras.txt  images.txt

The toolkit of the data set extracts the images of the phone from its video (python -m iphone.prepare_iphone_data). A
scene may lack iphone or dslr. The preparation undistorts the images, renders their depth from the mesh between 0.05 and
20 m, except where masks hide people, and finds overlapping frames from their depth, so no list of pairs is needed.
Requires the package embreex.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from streamvggt.data.dataset_reader import DatasetReader, make_view
from streamvggt.data.decode import DataError, read_image, read_mask
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler, CovisibilitySampler
from streamvggt.data.transforms import resize
from streamvggt.data.view import View
from streamvggt.datasets._colmap import ColmapCamera, ColmapImage, read_colmap
from streamvggt.datasets._covisibility import covisible
from streamvggt.datasets._files import FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, neighbors_in_time
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets._raycast import MeshDepthRenderer
from streamvggt.datasets._scene_table import SceneTable, scene_cameras, scene_frames, scene_groups, write_scene_list

FOLDER = "processed_scannetpp"
FILES = FrameFiles("images/{}.jpg", "depth/{}.png")
SCENES, TABLE = "all_metadata.npz", "new_scene_metadata.npz"
CAMERAS = {"DSC": 1168, "frame_": 1440}  # name prefix, and height of the original images
MESH = "scans/mesh_aligned_0.05.ply"
SIZE = 920, 690
NEAREST, FARTHEST = 0.05, 20  # meters
ORIGIN = np.zeros(3), np.zeros(3)  # identity pose


class ScanNetpp(DatasetReader):
    """ScanNet++. Clips contain images of one camera, groups those of both."""

    name, folder, is_metric = "ScanNet++", FOLDER, True
    view_sampler = CovisibilitySampler(
        ClipSampler(max_interval=3, video_prob=0.8, fix_interval_prob=0.5, block_shuffle=16),
        clip_prob=0.7,
        best_first=True,
        ordered_prob=0.05 / 0.3,
    )

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        scenes = listing.npz(self.root / SCENES, "scenes")["scenes"]
        return {str(scene): sorted(scene_frames(listing, self.root / str(scene) / TABLE)) for scene in scenes}

    def segments(self, scene: str) -> list[Sequence[int]]:
        frames = self.frames(scene)
        runs = [[i for i, frame in enumerate(frames) if frame.startswith(camera)] for camera in CAMERAS]
        return [run for run in runs if run]

    def groups(self, scene: str) -> Sequence[Sequence[int]]:
        return scene_groups(self.root / scene / TABLE, tuple(self.frames(scene)))

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        camera = scene_cameras(folder / TABLE)[frame]
        stored = FILES.read(folder, frame, (camera.intrinsics.copy(), camera.world_from_cam))
        stored.intrinsics[:2, 2] -= principal_point_excess(frame, stored.image.shape[0])
        return stored.view(self.is_metric)


def principal_point_excess(frame: str, height: int) -> float:
    """Return the error of the stored principal point in pixels.

    The principal point was (W/2, H/2) of the original image with the first pixel center at (0.5, 0.5). It was scaled as
    if this center were (0, 0). The error is half a pixel of the original.
    """
    for camera, original_height in CAMERAS.items():
        if frame.startswith(camera):
            return 0.5 * height / original_height
    raise DataError(f"the frame {frame!r} of ScanNet++ is neither DSC##### nor frame_######")


def raw_scenes(raw: Path) -> list[str]:
    return sorted({mesh.parents[1].name for root in (raw, raw / "data") for mesh in root.glob(f"*/{MESH}")})


def prepare(raw: Path, scene: str, folder: Path) -> None:
    source = next(path for root in (raw, raw / "data") if ((path := root / scene) / MESH).exists())
    mesh = MeshDepthRenderer.load(source / MESH)
    frames = SceneTable(stored_intrinsics, covisible)
    for image, picture, mask in _pictures(source):
        name = Path(image.name).stem
        view = _view(image, picture, mask, mesh)
        FILES.write(folder, name, view)
        frames.add(name, view)
    if not len(frames):
        raise SkipScene("it has no images with poses")
    frames.write(folder / TABLE)


def finish(raw: Path, out: Path) -> None:
    write_scene_list(out / SCENES, TABLE)


def stored_intrinsics(name: str, view: View) -> np.ndarray:
    """Add the error of the published files, which the reader subtracts. (3, 3)"""
    intrinsics = view.intrinsics.double().numpy()
    intrinsics[:2, 2] += principal_point_excess(name, view.depth.shape[0])
    return intrinsics


def _pictures(source: Path) -> Iterator[tuple[ColmapImage, Path, Path]]:
    """Return images with poses, their files and mask files, DSLR first."""
    places = {"dslr": ("resized_images", "resized_anon_masks"), "iphone": ("rgb", "rgb_masks")}
    for device, (pictures, masks) in places.items():
        folder = source / device
        if not (folder / "colmap/images.txt").exists():
            continue
        if not (folder / pictures).is_dir():
            raise FileNotFoundError(
                f"no folder at {folder / pictures}, only the poses of its images: extract the images with the toolkit "
                f"of ScanNet++, or move {folder} away to skip them"
            )
        for image in read_colmap(folder / "colmap"):
            yield image, folder / pictures / image.name, (folder / masks / image.name).with_suffix(".png")


def _view(image: ColmapImage, picture: Path, mask: Path, mesh: MeshDepthRenderer) -> View:
    colors = read_image(picture)
    height, width = image.camera.height, image.camera.width
    if colors.shape[:2] != (height, width):
        raise DataError(f"{picture} has {colors.shape[:2]} pixels, cameras.txt says {(height, width)}")
    intrinsics, x, y = undistortion(image.camera)
    seen = cv2.remap(read_mask(mask), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    view = make_view(
        picture,
        image=cv2.remap(colors, x, y, cv2.INTER_CUBIC),
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
    """Compute a pinhole camera without invalid pixels that covers as much as possible of a distorted image.

    Returns:
        intrinsics: Equal image size, square pixels, principal point in the center. (3, 3)
        x, y: Position of each pixel in the distorted image. The center of the first pixel is (0, 0). (H, W) float32
    """
    if camera.model not in ("OPENCV_FISHEYE", "OPENCV"):
        raise DataError(f"cameras of the model {camera.model} are not known; OPENCV_FISHEYE and OPENCV are")
    if len(camera.parameters) != 8:
        raise DataError(f"cameras.txt: expected 8 parameters of {camera.model}, got {len(camera.parameters)}.")
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

    def has_no_invalid_pixels(focal: float) -> bool:
        flat = ((border - middle) / focal)[:, None]  # (N, 1, 2)
        if is_fisheye:
            seen = cv2.fisheye.distortPoints(flat, K, bend)
        else:
            seen, _ = cv2.projectPoints(np.pad(flat, ((0, 0), (0, 0), (0, 1)), constant_values=1), *ORIGIN, K, bend)
        return bool((np.abs(seen[:, 0] - middle) <= middle).all())

    too_wide, focal = 0.1 * fx, 10 * fx
    for _ in range(40):
        between = (too_wide + focal) / 2
        too_wide, focal = (too_wide, between) if has_no_invalid_pixels(between) else (between, focal)
    straight = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    maps = cv2.fisheye.initUndistortRectifyMap if is_fisheye else cv2.initUndistortRectifyMap
    return straight, *maps(K, bend, np.eye(3), straight, (width, height), cv2.CV_32FC1)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures. The first half of a clip is DSLR, the second iPhone."""
    root = out / FOLDER
    written = []
    for number, clip in enumerate(clips):
        scene = f"{0x036BCE3393 + number:010x}"
        stills = (len(clip) + 1) // 2
        frames = [f"DSC{frame + 1:05d}" for frame in range(stills)]
        frames += [f"frame_{10 * frame:06d}" for frame in range(len(clip) - stills)]
        table = SceneTable(stored_intrinsics, neighbors_in_time)
        for name, view in zip(frames, clip, strict=True):
            FILES.write(root / scene, name, view)
            table.add(name, view)
        table.write(root / scene / TABLE)
        written.append(WrittenScene(scene, frames))
    write_scene_list(root / SCENES, TABLE)
    return written
