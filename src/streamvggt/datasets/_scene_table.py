"""One file per scene with the cameras of all frames: the ARKitScenes sets, ScanNet++.

images            (N,) names; with or without the suffix ".png"
intrinsics        (N, 6) width, height, fx, fy, cx, cy; or (N, 3, 3)
trajectories      (N, 4, 4) world-from-camera
image_collection  {frame: [(other frame, overlap), …]}, frame indices from 0; not in every set
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from streamvggt.data.decode import DataError, decoding, read_npz
from streamvggt.data.encode import depth_array, world_from_cam
from streamvggt.data.file_index import FileIndex
from streamvggt.data.view import View
from streamvggt.datasets._covisibility import LowResFrame
from streamvggt.files import atomic_write


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels (3, 3), world-from-camera pose (4, 4) and image height and width, None if not stored."""

    intrinsics: np.ndarray
    world_from_cam: np.ndarray
    size: tuple[int, int] | None


def scene_frames(listing: FileIndex, path: Path) -> list[str]:
    """Return the names of the frames without suffix, in the order of the file."""
    return [str(name).removesuffix(".png") for name in listing.npz(path, "images")["images"]]


@lru_cache(maxsize=16)
def scene_cameras(path: Path) -> Mapping[str, Camera]:
    """Read the cameras of a scene by frame name.

    Raises:
        DataError: If the arrays differ in length.
    """
    table = read_npz(path, "images", "intrinsics", "trajectories")
    names, intrinsics, poses = table["images"], table["intrinsics"], table["trajectories"]
    if not len(names) == len(intrinsics) == len(poses):
        raise DataError(f"{path}: {len(names)} images, {len(intrinsics)} intrinsics and {len(poses)} trajectories")
    cameras = {}
    for name, numbers, pose in zip(names, intrinsics, poses, strict=True):
        size = None
        if numbers.shape == (6,):
            width, height, fx, fy, cx, cy = numbers.tolist()
            size = round(height), round(width)
            numbers = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        cameras[str(name).removesuffix(".png")] = Camera(numbers, pose, size)
    return cameras


@lru_cache(maxsize=16)
def scene_groups(path: Path, frames: tuple[str, ...]) -> Sequence[Sequence[int]]:
    """Return groups of overlapping frames: each frame with its neighbors, best first, as positions in `frames`.

    Neighbors that are not in `frames` are omitted.

    Raises:
        DataError: If `image_collection` has another format.
    """
    table = read_npz(path, "images", "image_collection")
    names = [str(name).removesuffix(".png") for name in table["images"]]
    position = {name: number for number, name in enumerate(frames)}
    groups = []
    with decoding(path, "an image_collection {frame: [(frame, share), …]} of its images"):
        for reference, neighbors in table["image_collection"].item().items():
            best_first = sorted(neighbors, key=lambda neighbor: -neighbor[1])
            members = [names[int(number)] for number in (reference, *(number for number, _ in best_first))]
            if members[0] in position:
                groups.append([position[name] for name in members if name in position])
    return groups


class SceneTable:
    """Collect the cameras of a scene frame by frame and write the table.

    Args:
        intrinsics_of: Function that returns the stored intrinsics of a view: (6,) or (3, 3).
        groups: Function that finds overlapping frames, or None for a set without groups.
    """

    def __init__(
        self,
        intrinsics_of: Callable[[str, View], np.ndarray],
        groups: Callable[[Sequence[LowResFrame]], Mapping[int, Sequence[tuple[int, float]]]] | None,
    ):
        self._intrinsics_of = intrinsics_of
        self._groups = groups
        self._names: list[str] = []
        self._intrinsics: list[np.ndarray] = []
        self._poses: list[np.ndarray] = []
        self._smalls: list[LowResFrame] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, view: View) -> None:
        self._names.append(name)
        self._intrinsics.append(self._intrinsics_of(name, view))
        self._poses.append(world_from_cam(view))
        if self._groups is not None:
            self._smalls.append(LowResFrame.of(depth_array(view), view.intrinsics.numpy(), self._poses[-1]))

    def write(self, path: Path) -> None:
        more = {}
        if self._groups is not None:
            groups = self._groups(self._smalls)
            pairs = [(i, j, share) for i, neighbors in groups.items() for j, share in neighbors]
            more = {
                "pairs": np.array(pairs, np.float64).reshape(-1, 3),
                "image_collection": np.array(groups, dtype=object),
            }
        np.savez(
            path,
            images=np.array(self._names),
            intrinsics=np.array(self._intrinsics, np.float64),
            trajectories=np.stack(self._poses),
            **more,
        )


def write_scene_list(path: Path, table: str) -> None:
    """Write the list of scenes: the folders beside the file that contain a `table`."""
    scenes = sorted(found.parent.name for found in path.parent.glob(f"[!.]*/{table}"))
    with atomic_write(path) as unfinished:
        np.savez(unfinished, scenes=np.array(scenes, dtype=str))
