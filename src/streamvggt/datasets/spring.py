"""Spring (Mehl et al., arXiv 2303.01943): an animated film, rendered with depth.

ROOT/spring/<sequence>/rgb/%04d.png       960×540
                       depth/%04d.npy     float32, meters; 0 or not finite where unknown
                       cam/%04d.npz       intrinsics (3, 3), pose (4, 4) world-from-camera

RAW  the folder that contains `train` (spring-benchmark.org: train_frame_left, train_disp1_left, train_cam_data), or it
     <sequence>/frame_left/frame_left_%04d.png    1920×1080
                disp1_left/disp1_left_%04d.dsp5   HDF5, at twice the size of the images
                cam_data/intrinsics.txt           fx fy cx cy, a line per frame
                cam_data/extrinsics.txt           camera-from-world 4×4, a line per frame

The preparation halves the images and converts disparity to depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np

from streamvggt.data.dataset_reader import DatasetReader, make_view
from streamvggt.data.decode import read_hdf5, read_image, read_table
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.transforms import resize
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips

FOLDER = "spring"
FILES = FrameFiles("rgb/{}.png", "depth/{}.npy", CameraFile("cam/{}.npz"))
BASELINE = 0.065  # meters
OUTDOORS = True


class Spring(DatasetReader):
    """Spring. A scene is a folder with images."""

    name, folder, is_metric = "Spring", FOLDER, True
    view_sampler = ClipSampler(max_interval=16, video_prob=1.0, fix_interval_prob=1.0)

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        return FILES.scenes(listing, self.root)

    def read(self, scene: str, frame: str) -> View:
        return FILES.read(self.root / scene, frame).view(self.is_metric)


def raw_scenes(raw: Path) -> list[str]:
    """Return the sequences with disparity. Test sequences have none."""
    return sorted(path.parent.name for path in sequences(raw).glob("*/disp1_left"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    sequence = sequences(raw) / scene
    images = sorted((sequence / "frame_left").glob("frame_left_*.png"))
    intrinsics = read_table(sequence / "cam_data/intrinsics.txt", 4, rows=len(images))
    extrinsics = read_table(sequence / "cam_data/extrinsics.txt", 16, rows=len(images)).reshape(-1, 4, 4)
    for number, image in enumerate(images):
        fx, fy, cx, cy = intrinsics[number]
        disparity_file = sequence / "disp1_left" / f"{image.stem.replace('frame', 'disp1')}.dsp5"
        disparity = read_hdf5(disparity_file, "disparity")[::2, ::2]
        known = np.isfinite(disparity) & (disparity > 0)
        view = make_view(
            image,
            image=read_image(image),
            depth=np.divide(fx * BASELINE, disparity, where=known, out=np.zeros_like(disparity)),
            intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            world_from_cam=np.linalg.inv(extrinsics[number]),
            is_metric=Spring.is_metric,
        )
        height, width = view.depth.shape
        FILES.write(folder, f"{number:04d}", resize(view, (width // 2, height // 2)))


def sequences(raw: Path) -> Path:
    return raw / "train" if (raw / "train").is_dir() else raw


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    return write_clips(FILES, out / FOLDER, clips, map("{:04d}".format, count(1)), "{:04d}")
