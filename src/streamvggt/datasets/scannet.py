"""ScanNet (Dai et al., arXiv 1702.04405): rooms seen by a tablet with a depth sensor.

ROOT/processed_scannet/scans_train|scans_test/<scene>/new_scene_metadata.npz    images, (N,) names
                                                      color/%05d.jpg
                                                      depth/%05d.png            uint16, millimeters
                                                      cam/%05d.npz              intrinsics, pose

RAW is the download of http://www.scan-net.org/ScanNet, either as it is or exported by its SensReader:
     scans|scans_train/<scene>/<scene>.sens             scans is taken for scans_train
     scans_test/<scene>/<scene>.sens
     or instead of the .sens:  color/<n>.jpg  depth/<n>.png  pose/<n>.txt  intrinsic/intrinsic_depth.txt

Frames whose pose was lost are skipped. The images get the size of the depth, whose camera is taken for both: the depth
is registered to the colors. The test scenes for evaluation are `scannetv2`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from streamvggt.data.dataset_reader import DatasetReader, make_view
from streamvggt.data.decode import DataError, read_image, read_png16, read_table
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets._scene_table import scene_frames
from streamvggt.datasets._sens import SensFile
from streamvggt.natural_order import natural_key

FOLDER = "processed_scannet"
FILES = FrameFiles("color/{}.jpg", "depth/{}.png", CameraFile("cam/{}.npz"))
TABLE = "new_scene_metadata.npz"
RAW_FOLDERS = {"scans_train": ("scans_train", "scans"), "scans_test": ("scans_test",)}


class ScanNet(DatasetReader):
    """ScanNet. A scene is one recording."""

    name, folder, is_metric = "ScanNet", FOLDER, True
    view_sampler = ClipSampler(max_interval=30, video_prob=0.6, fix_interval_prob=0.6, block_shuffle=16)
    splits = ("train", "test")

    @property
    def split_folder(self) -> Path:
        return self.root / f"scans_{self.split}"

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        scenes = [scene for scene in listing.folders(self.split_folder) if scene.startswith("scene")]
        return {scene: sorted(scene_frames(listing, self.split_folder / scene / TABLE)) for scene in scenes}

    def read(self, scene: str, frame: str) -> View:
        return FILES.read(self.split_folder / scene, frame).view(self.is_metric)


def raw_scenes(raw: Path) -> list[str]:
    return sorted(
        {
            f"{split}/{folder.name}"
            for split, places in RAW_FOLDERS.items()
            for place in places
            for folder in (raw / place).glob("scene*")
            if (folder / "pose").is_dir() or any(folder.glob("*.sens"))
        }
    )


def prepare(raw: Path, scene: str, folder: Path) -> None:
    split, name = scene.split("/")
    recording = next(path for place in RAW_FOLDERS[split] if (path := raw / place / name).is_dir())
    sens = next(recording.glob("*.sens"), None)
    frames = []
    for number, view in _frames_of_export(recording) if sens is None else _frames_of_sens(sens):
        frames.append(f"{number:05d}")
        FILES.write(folder, frames[-1], view)
    if not frames:
        raise SkipScene("no frame has a pose")
    write_table(folder, frames)


def write_table(folder: Path, frames: Iterable[str]) -> None:
    np.savez(folder / TABLE, images=np.array(list(frames)))


def _frames_of_sens(path: Path) -> Iterator[tuple[int, View]]:
    with SensFile(path) as recording:
        for number, frame in enumerate(recording):
            if np.isfinite(frame.world_from_cam).all():
                image = cv2.imdecode(np.frombuffer(frame.color, np.uint8), cv2.IMREAD_COLOR_RGB)
                if image is None:
                    raise DataError(f"{path}: the image of frame {number} is damaged")
                yield number, _view(path, image, frame.depth, recording.header.depth_intrinsics, frame.world_from_cam)


def _frames_of_export(folder: Path) -> Iterator[tuple[int, View]]:
    intrinsics = read_table(folder / "intrinsic/intrinsic_depth.txt", 4, rows=3)[:3, :3]
    for pose in sorted((folder / "pose").glob("*.txt"), key=natural_key):
        image, depth = folder / f"color/{pose.stem}.jpg", folder / f"depth/{pose.stem}.png"
        if np.isfinite(matrix := read_table(pose, 4, rows=4)).all():
            yield int(pose.stem), _view(image, read_image(image), read_png16(depth) / 1000, intrinsics, matrix)


def _view(path: Path, image: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray) -> View:
    """Return a view with colors at the size of the depth."""
    image = cv2.resize(image, depth.shape[::-1], interpolation=cv2.INTER_AREA)
    return make_view(path, image=image, depth=depth, intrinsics=intrinsics, world_from_cam=pose, is_metric=True)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures into the training split."""
    root = out / FOLDER / "scans_train"
    written = write_clips(FILES, root, clips, map("scene{:04d}_00".format, range(len(clips))), "{:05d}")
    for place in written:
        write_table(root / place.scene, place.frames)
    return written
