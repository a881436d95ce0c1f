"""ScanNet's test scenes (Dai et al., CVPR 2017), scene0707_00 … scene0806_00. For evaluation of depth and trajectories.

ROOT/scannetv2/<scene>/color_90/frame_%04d.jpg
                       depth_90/frame_%04d.png    uint16, millimeters, 0 unknown
                       pose_90.txt                16 numbers a line, world-from-camera; for camera trajectories only

RAW is the download of http://www.scan-net.org/ScanNet:
     scans_test/<scene>/<scene>.sens
     or instead, as its SensReader exports:  color/<n>.jpg  depth/<n>.png  pose/<n>.txt

The first 90 frames, three apart, are taken. Training reads the same recordings as `scannet`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from streamvggt.data.decode import DataError, read_table
from streamvggt.data.encode import world_from_cam, write_png
from streamvggt.datasets._depth_set import DepthSet, Pair, files, pair_by_name, read_fixed_point, subfolders
from streamvggt.datasets._files import FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets._sens import SensFile
from streamvggt.datasets._trajectory_set import TrajectorySet, from_world_from_cam
from streamvggt.files import link_or_copy
from streamvggt.natural_order import natural_key

FOLDER = "scannetv2"
IMAGES, DEPTHS, POSES = "color_90", "depth_90", "pose_90.txt"
FILES = FrameFiles(f"{IMAGES}/{{}}.jpg", f"{DEPTHS}/{{}}.png")
NAME = "frame_{:04d}"
FRAME_RANGE = slice(None, 270, 3)


class ScanNetDepth(DepthSet):
    """Depth of ScanNet's test scenes. No published program reads them. Valid depth is defined as for Bonn and KITTI."""

    name = "ScanNet"
    folders = (FOLDER,)

    def list_scenes(self) -> dict[str, list[Pair]]:
        return {
            folder.name: pair_by_name(files(folder / IMAGES, ".jpg"), files(folder / DEPTHS, ".png"))
            for folder in subfolders(self.root)
            if (folder / IMAGES).is_dir()
        }

    def read_depth(self, path: Path) -> np.ndarray:
        return read_fixed_point(path, 1000)


class ScanNetTrajectories(TrajectorySet):
    """Trajectories of all scenes with poses."""

    name, folder = "ScanNet", FOLDER

    def list_scenes(self) -> list[str]:
        return [path.parent.name for path in self.root.glob(f"*/{POSES}")]

    def images(self, sequence: str) -> list[Path]:
        return files(self.root / sequence / IMAGES, ".jpg")

    def poses(self, sequence: str) -> Tensor:
        table = read_table(self.root / sequence / POSES, 16)
        return from_world_from_cam(table.reshape(-1, 4, 4))


def raw_scenes(raw: Path) -> list[str]:
    return sorted(folder.name for folder in (raw / "scans_test").glob("scene*") if folder.is_dir())


def prepare(raw: Path, scene: str, folder: Path) -> None:
    recording = raw / "scans_test" / scene
    for kind in (IMAGES, DEPTHS):
        (folder / kind).mkdir()
    sens = recording / f"{scene}.sens"
    poses = list(_from_sens(sens, folder) if sens.exists() else _from_export(recording, folder))
    if not poses:
        raise SkipScene("it has no frames")
    np.savetxt(folder / POSES, [pose.flatten() for pose in poses], fmt="%.9f")


def _from_sens(path: Path, folder: Path) -> Iterator[np.ndarray]:
    """Write the files of the frames and return their world-from-camera poses."""
    with SensFile(path) as recording:
        if recording.header.color_suffix != ".jpg":
            raise DataError(f"{path}: JPEG images were expected, they are {recording.header.color_suffix}")
        for number, frame in enumerate(islice(recording, FRAME_RANGE.start, FRAME_RANGE.stop, FRAME_RANGE.step)):
            FILES.image_path(folder, NAME.format(number)).write_bytes(frame.color)
            write_png(FILES.depth_path(folder, NAME.format(number)), np.rint(frame.depth * 1000).astype(np.uint16))
            yield frame.world_from_cam


def _from_export(recording: Path, folder: Path) -> Iterator[np.ndarray]:
    for number, path in enumerate(sorted(recording.glob("pose/*.txt"), key=natural_key)[FRAME_RANGE]):
        link_or_copy(recording / f"color/{path.stem}.jpg", FILES.image_path(folder, NAME.format(number)))
        link_or_copy(recording / f"depth/{path.stem}.png", FILES.depth_path(folder, NAME.format(number)))
        yield read_table(path, 4, rows=4)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    written = write_clips(FILES, out / FOLDER, clips, map("scene{:04d}_00".format, range(707, 807)), NAME)
    for place, clip in zip(written, clips, strict=True):
        poses = [world_from_cam(view).flatten() for view in clip]
        np.savetxt(out / FOLDER / place.scene / POSES, poses, fmt="%.9f")
    return written
