"""MPI Sintel (Butler et al., ECCV 2012): an animated film with ground-truth depth. For evaluation, read as downloaded.

ROOT/sintel/training/final/<sequence>/frame_%04d.png
                     depth/<sequence>/frame_%04d.dpt           float32 after tag, width and height
                     camdata_left/<sequence>/frame_%04d.cam    tag, intrinsics 3×3, camera-from-world 3×4, float64;
                                                               for camera trajectories only
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.decode import DataError
from streamvggt.data.encode import depth_array, write_image
from streamvggt.datasets._depth_set import DepthSet, Pair, files, pair_by_name, subfolders
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._trajectory_set import TrajectorySet

FOLDER = "sintel"
IMAGES, DEPTHS, CAMERAS = (f"training/{part}" for part in ("final", "depth", "camdata_left"))
TAG = 202021.25
"""First number of .dpt and .cam files. Another value means another byte order."""

TRAJECTORY_SEQUENCES = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2"),
    *("market_5", "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
"""Sequences of the trajectory evaluation, 643 frames. The others have little or unknown motion."""
WRITTEN = ("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5", "temple_2")
"""Sequences of fixtures."""
SKY = 1000.0  # meters, in fixtures
OUTDOORS = True


class Sintel(DepthSet):
    """Depth of all MPI Sintel sequences."""

    name = "Sintel"
    folders = (FOLDER,)

    def list_scenes(self) -> dict[str, list[Pair]]:
        return {
            folder.name: pair_by_name(files(folder, ".png"), files(self.root / DEPTHS / folder.name, ".dpt"))
            for folder in subfolders(self.root / IMAGES)
        }

    def read_depth(self, path: Path) -> np.ndarray:
        return read_dpt(path)


class SintelTrajectories(TrajectorySet):
    """Trajectories of the fourteen sequences of the published evaluation."""

    name, folder = "Sintel", FOLDER

    def list_scenes(self) -> list[str]:
        return [name for name in TRAJECTORY_SEQUENCES if (self.root / CAMERAS / name).is_dir()]

    def images(self, sequence: str) -> list[Path]:
        return files(self.root / IMAGES / sequence, ".png")

    def poses(self, sequence: str) -> Tensor:
        cameras = self.root / CAMERAS / sequence
        paths = [cameras / f"{image.stem}.cam" for image in self.images(sequence)]
        return torch.from_numpy(np.stack([read_cam(path)[1] for path in paths]))


def read_cam(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read intrinsics in pixels (3, 3) and the camera-from-world pose (3, 4), float64."""
    content = path.read_bytes()
    if len(content) != 4 + 8 * (9 + 12) or np.frombuffer(content[:4], "<f4")[0] != TAG:
        raise DataError(f"{path} is not a .cam file, or is damaged: {TAG} and 21 numbers were expected")
    numbers = np.frombuffer(content, "<f8", offset=4).astype(np.float64)
    return numbers[:9].reshape(3, 3), numbers[9:].reshape(3, 4)


def read_dpt(path: Path) -> np.ndarray:
    """Read depth in meters. Sky has a large depth. (H, W) float32"""
    content = path.read_bytes()
    tag = np.frombuffer(content[:4], "<f4")
    size = np.frombuffer(content[4:12], "<i4")
    if not len(tag) or tag[0] != TAG or len(size) != 2 or not 1 < int(size[0]) * int(size[1]) < 1e8:
        raise DataError(f"{path} is not a .dpt file, or is damaged: it does not begin with {TAG}, width and height")
    width, height = size.tolist()
    if len(content) != 12 + 4 * width * height:
        raise DataError(
            f"{path} is cut off: {width}×{height} numbers were expected, {(len(content) - 12) // 4} are there"
        )
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width).astype(np.float32)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures, one scene per name."""
    images, depths, cameras = (out / FOLDER / part for part in (IMAGES, DEPTHS, CAMERAS))
    written = []
    for scene, clip in zip(WRITTEN, clips, strict=False):
        frames = [f"frame_{number + 1:04d}" for number in range(len(clip))]
        for folder in (depths, cameras):
            (folder / scene).mkdir(parents=True, exist_ok=True)
        for frame, view in zip(frames, clip, strict=True):
            write_image(images / scene / f"{frame}.png", view)
            write_dpt(depths / scene / f"{frame}.dpt", np.where(view.sky.numpy(), SKY, depth_array(view)))
            write_cam(cameras / scene / f"{frame}.cam", view.intrinsics.numpy(), view.cam_from_world.numpy())
        written.append(WrittenScene(scene, frames))
    return written


def write_dpt(path: Path, depth: np.ndarray) -> None:
    """Write depth in meters. (H, W)"""
    height, width = depth.shape
    head = np.float32(TAG).tobytes() + np.array([width, height], "<i4").tobytes()
    path.write_bytes(head + depth.astype("<f4").tobytes())


def write_cam(path: Path, intrinsics: np.ndarray, cam_from_world: np.ndarray) -> None:
    """Write intrinsics (3, 3) and the camera-from-world pose (3, 4)."""
    path.write_bytes(
        np.float32(TAG).tobytes() + intrinsics.astype("<f8").tobytes() + cam_from_world.astype("<f8").tobytes()
    )
