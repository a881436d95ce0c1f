"""Virtual KITTI 2 (Cabon et al., arXiv 2001.10773): drives through rendered towns, in several weathers.

ROOT/processed_vkitti/<Scene>/<variation>/Camera_0|Camera_1/%05d_rgb.jpg
                                                            %05d_depth.png   uint16, centimeters; sky from 655 m on
                                                            %05d_cam.npz     camera_intrinsics (3, 3), camera_pose
                                                                             (4, 4) world-from-camera; float32

RAW  the archives rgb, depth and textgt, unpacked into one folder
     <Scene>/<variation>/frames/rgb/Camera_0|Camera_1/rgb_%05d.jpg
                         frames/depth/Camera_0|Camera_1/depth_%05d.png    uint16, centimeters
                         intrinsic.txt                                     frame, camera, fx, fy, cx, cy
                         extrinsic.txt                                     frame, camera, camera-from-world 4×4
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError, read_table
from streamvggt.data.encode import depth_array
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips

FOLDER = "processed_vkitti"
CAMERA = CameraFile("{}_cam.npz", "camera_intrinsics", "camera_pose")
FILES = FrameFiles("{}_rgb.jpg", "{}_depth.png", CAMERA, steps=100)
SKY = 655  # meters
FARTHEST = 655.35  # meters that the file can hold
OUTDOORS = True


class VirtualKitti2(DatasetReader):
    """Virtual KITTI 2. A scene is one camera of one variation. "train" is all but the last town, "test" the last."""

    name, folder, is_metric = "Virtual KITTI 2", FOLDER, True
    view_sampler = ClipSampler(max_interval=5, video_prob=1.0, fix_interval_prob=0.9)
    splits = ("all", "train", "test")

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        towns = listing.folders(self.root)
        towns = {"all": towns, "train": towns[:-1], "test": towns[-1:]}[self.split]
        scenes = [
            f"{town}/{variation}/{camera}"
            for town in towns
            for variation in listing.folders(self.root / town)
            for camera in listing.folders(self.root / town / variation)
        ]
        return {scene: FILES.names(listing, self.root / scene) for scene in scenes}

    def read(self, scene: str, frame: str) -> View:
        stored = FILES.read(self.root / scene, frame)
        return replace(stored, sky=stored.depth >= SKY).view(self.is_metric)


def raw_scenes(raw: Path) -> list[str]:
    folders = sorted(raw.glob("*/*/frames/rgb/Camera_*"))
    return [f"{folder.parents[3].name}/{folder.parents[2].name}/{folder.name}" for folder in folders]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    town, variation, camera = scene.split("/")
    place, number = raw / town / variation, int(camera.removeprefix("Camera_"))
    intrinsics, extrinsics = table(place / "intrinsic.txt", 4), table(place / "extrinsic.txt", 16)
    for image in sorted((place / "frames/rgb" / camera).glob("rgb_*.jpg")):
        frame = image.stem.removeprefix("rgb_")
        key = int(frame), number
        if key not in intrinsics or key not in extrinsics:
            raise DataError(f"{place}: intrinsic.txt or extrinsic.txt has no line of frame {key[0]}, camera {number}")
        fx, fy, cx, cy = intrinsics[key]
        shutil.copyfile(image, FILES.image_path(folder, frame))
        shutil.copyfile(place / "frames/depth" / camera / f"depth_{frame}.png", FILES.depth_path(folder, frame))
        pose = np.linalg.inv(extrinsics[key].reshape(4, 4))
        CAMERA.write(folder, frame, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], pose)


@lru_cache(maxsize=4)
def table(path: Path, num_values: int) -> dict[tuple[int, int], np.ndarray]:
    """Read the values of a table with a header line by frame and camera."""
    rows = read_table(path, 2 + num_values, skip=1)
    return {(int(row[0]), int(row[1])): row[2:] for row in rows}


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures: two clips per town, one per camera. A clip without partner is used for both cameras."""
    clips = [*clips, *clips[-1:]] if len(clips) % 2 else list(clips)
    scenes = [f"Scene{number // 2 + 1:02d}/clone/Camera_{number % 2}" for number in range(len(clips))]
    written = write_clips(FILES, out / FOLDER, clips, scenes, "{:05d}", depth=with_far_sky)
    return written[:-1] if clips[-1] is clips[-2] else written


def with_far_sky(view: View) -> np.ndarray:
    return np.where(view.sky, FARTHEST, depth_array(view))
