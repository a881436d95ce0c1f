"""PointOdyssey (Zheng et al., arXiv 2307.15055): rendered moving people and objects.

ROOT/point_odyssey/train/<scene>/rgb/%05d.jpg
                                 depth/%05d.npy   float32, meters; 1000 where the 16 bits of the download were saturated
                                 cam/%05d.npz     intrinsics (3, 3), pose (4, 4) world-from-camera

RAW  version 1.2
     train/<scene>/rgbs/rgb_%05d.jpg
                   depths/depth_%05d.png   uint16; 65535 is a kilometer or more
                   anno.npz                intrinsics (T, 3, 3), extrinsics (T, 4, 4) camera-from-world

Only the scenes of the training split are prepared. Images are linked instead of copied if the file system allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError, read_npz, read_png16
from streamvggt.data.encode import depth_array
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips
from streamvggt.files import link_or_copy

FOLDER = "point_odyssey"
FILES = FrameFiles("rgb/{}.jpg", "depth/{}.npy", CameraFile("cam/{}.npz"))
FAR = 1000  # meters
FULL = 65535  # of the raw depth
SCENES = {
    f"{place}{camera}"
    for place, cameras in {
        "cnb_dlab_0215": ("_3rd", "_ego1"),
        "cnb_dlab_0225": ("_3rd", "_ego1"),
        "dancing": ("",),
        "dancingroom0_3rd": ("",),
        "footlab": ("_3rd", "_ego1", "_ego2"),
        "girl": ("", "_egocentric"),
        "human": ("_egocentric", "_in_scene", "_in_scene1"),
        "kg": ("", "_ego1", "_ego2"),
        "kitchen_gfloor": ("", "_ego1", "_ego2"),
        "scene_carb_h_tables": ("", "_ego1", "_ego2"),
        "scene_j716": ("_3rd", "_ego1", "_ego2"),
        "scene_recording_20210910_S05_S06_0": ("_3rd", "_ego2"),
        "scene1_0129": ("", "_ego"),
        "seminar_h52": ("_3rd", "_ego1", "_ego2"),
    }.items()
    for camera in cameras
}
"""Scenes of the published training. The others lack a background or have wrong cameras or depth."""
UNLISTED = "ani10_new_f"
OUTDOORS = True


class PointOdyssey(DatasetReader):
    """PointOdyssey, scenes of `SCENES`. No other split, because the ground truth of val and test is wrong."""

    name, folder, is_metric = "PointOdyssey", FOLDER, True
    view_sampler = ClipSampler(max_interval=4, video_prob=1.0, fix_interval_prob=1.0)

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        there = SCENES & set(listing.folders(self.root / self.split))
        return {scene: FILES.names(listing, self.root / self.split / scene) for scene in sorted(there)}

    def read(self, scene: str, frame: str) -> View:
        stored = FILES.read(self.root / self.split / scene, frame)
        # FAR is the saturated 16-bit value: this depth or more.
        return replace(stored, depth=np.where(stored.depth < FAR, stored.depth, 0)).view(self.is_metric)


def raw_scenes(raw: Path) -> list[str]:
    return [f"train/{scene}" for scene in sorted(SCENES) if (raw / "train" / scene).is_dir()]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    (folder / "rgb").mkdir()
    cameras = read_npz(raw / scene / "anno.npz", "intrinsics", "extrinsics")
    images = sorted((raw / scene / "rgbs").glob("rgb_*.jpg"))
    if not images:
        raise DataError(f"{raw / scene / 'rgbs'}: no images rgb_%05d.jpg in it")
    last, num_cameras = images[-1].stem.removeprefix("rgb_"), len(cameras["extrinsics"])
    if int(last) >= num_cameras:
        raise DataError(f"{raw / scene}: image {last} has no camera in anno.npz, which has {num_cameras}")
    for image in images:
        frame = image.stem.removeprefix("rgb_")
        depth = read_png16(raw / scene / "depths" / f"depth_{frame}.png")
        link_or_copy(image, FILES.image_path(folder, frame))
        FILES.write_depth(folder, frame, np.where(depth < FULL, depth * (FAR / FULL), 0))
        pose = np.linalg.inv(cameras["extrinsics"][int(frame)].astype(np.float64))
        FILES.camera.write(folder, frame, cameras["intrinsics"][int(frame)], pose)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures. The sky is a kilometer away, as in the published preparation. One scene is not in `SCENES`."""
    root = out / FOLDER / "train"
    write_clips(FILES, root, clips[:1], [UNLISTED], "{:05d}")
    return write_clips(FILES, root, clips, sorted(SCENES), "{:05d}", depth=with_far_sky)


def with_far_sky(view: View) -> np.ndarray:
    return np.where(view.sky, FAR, depth_array(view))
