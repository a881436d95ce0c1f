"""Common parts of both forms of ARKitScenes: depth of the tablet sensor, and depth of a laser scanner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from streamvggt.data.dataset_reader import DatasetReader, make_view
from streamvggt.data.decode import DataError, read_image, read_table
from streamvggt.data.transforms import nearest_indices
from streamvggt.data.view import View
from streamvggt.datasets._files import FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets._scene_table import SceneTable, scene_cameras

TIME_TOLERANCE = 0.009  # seconds; frames of the depth sensor are 1/60 s apart
MAX_POSE_GAP = 0.5  # seconds without a pose, beyond which poses are not interpolated
QUARTER_TURN = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # of the camera axes after a quarter turn to the left
UP = np.array([0.0, 0, 1])  # of the world


FIRST_SECOND = 999.8  # of fixtures; text sorting puts times below 1000 s after later ones


class ARKitFrames(DatasetReader):
    """Reader of a set whose cameras are in one table per scene.

    Attributes:
        files: Files of a frame.
        table: Name of the file with the cameras of a scene.
        split_folders: Folder of each split.
    """

    is_metric = True
    splits = ("train", "test")
    files: ClassVar[FrameFiles]
    table: ClassVar[str]
    split_folders: ClassVar[Mapping[str, str]]

    @property
    def split_folder(self) -> Path:
        return self.root / self.split_folders[self.split]

    def read(self, scene: str, frame: str) -> View:
        folder = self.split_folder / scene
        camera = scene_cameras(folder / self.table)[frame]
        stored = self.files.read(folder, frame, (camera.intrinsics, camera.world_from_cam))
        if stored.image.shape[:2] != camera.size:
            sizes = f"{stored.image.shape[:2]} pixels, its camera in {self.table} {camera.size}"
            raise DataError(f"{stored.path}: the image has {sizes}")
        return stored.view(self.is_metric)


def seconds(frame: str) -> float:
    """Return the capture time of a frame named <scene>_<seconds>. As text, times of different lengths do not sort.

    Raises:
        DataError: If the frame has another name.
    """
    try:
        return float(frame.rpartition("_")[2])
    except ValueError as error:
        raise DataError(f"the frame {frame!r} of ARKitScenes is not called <scene>_<seconds>") from error


def raw_scenes(raw: Path, splits: Mapping[str, Sequence[str]], needed: str) -> list[str]:
    """Return the scenes of a download that contain a folder `needed`, as "Training/40000001".

    Args:
        raw: Folder of the download.
        splits: For each prepared split folder, the possible names of its raw folder.
        needed: Folder that a scene must contain.
    """
    return sorted(
        {
            f"{split}/{folder.parent.name}"
            for split, places in splits.items()
            for place in places
            for root in (raw, raw / "raw")
            for folder in (root / place).glob(f"[0-9]*/{needed}")
            if (folder.parent / "lowres_wide.traj").exists()
        }
    )


def raw_folder(raw: Path, scene: str, splits: Mapping[str, Sequence[str]]) -> Path:
    split, name = scene.split("/")
    folders = [root / place / name for place in splits[split] for root in (raw, raw / "raw")]
    return next(folder for folder in folders if (folder / "lowres_wide.traj").exists())


@dataclass(frozen=True)
class Recording:
    """A scene as downloaded. Poses are world-from-camera with OpenCV axes, in meters."""

    folder: Path

    @cached_property
    def images(self) -> dict[float, Path]:
        return sorted_by_time(self.folder / "vga_wide", ".png")

    @cached_property
    def pincams(self) -> dict[float, Path]:
        return sorted_by_time(self.folder / "vga_wide_intrinsics", ".pincam")

    @cached_property
    def _trajectory(self) -> tuple[np.ndarray, Rotation, np.ndarray]:
        """Return times (T,), world-from-camera rotations and camera centers (T, 3)."""
        rows = read_table(self.folder / "lowres_wide.traj", 7, rows=2)
        rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
        # Rows contain camera-from-world rotations and translations.
        world_from_cam = Rotation.from_rotvec(rows[:, 1:4]).inv()
        return rows[:, 0], world_from_cam, -world_from_cam.apply(rows[:, 4:7])

    @cached_property
    def _interpolate_orientation(self) -> Slerp:
        times, orientations, _ = self._trajectory
        return Slerp(times, orientations)

    def pose(self, time: float) -> np.ndarray | None:
        """Interpolate the world-from-camera pose at a time in seconds. None if no pose is near. (4, 4)"""
        times, _, places = self._trajectory
        after = np.searchsorted(times, time)
        if not times[0] <= time <= times[-1] or (after and times[after] - times[after - 1] > MAX_POSE_GAP):
            return None
        pose = np.eye(4)
        pose[:3, :3] = self._interpolate_orientation(time).as_matrix()
        pose[:3, 3] = [np.interp(time, times, places[:, axis]) for axis in range(3)]
        return pose

    def view(self, time: float, millimeters: np.ndarray) -> View | None:
        """Read the frame taken at a time in seconds. Returns None if its pose or camera is unknown.

        Args:
            time: Key of `images`.
            millimeters: Depth along the optical axis, any size. (h, w)

        Raises:
            DataError: If the image size differs from that of its camera.
        """
        pose, pincam = self.pose(time), nearest_time(self.pincams, time)
        if pose is None or pincam is None:
            return None
        path = self.images[time]
        image = read_image(path)
        width, height, fx, fy, cx, cy = read_table(self.pincams[pincam], 6, rows=1)[0]
        if image.shape[:2] != (height, width):
            raise DataError(f"{path} has {image.shape[:2]} pixels, its .pincam says {(int(height), int(width))}")
        rows, columns = (nearest_indices(a, b) for a, b in zip(millimeters.shape, image.shape[:2], strict=True))
        return make_view(
            path,
            image=image,
            depth=millimeters[rows[:, None], columns] / 1000,
            intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            world_from_cam=pose,
            is_metric=True,
        )

    @cached_property
    def quarter_turns(self) -> int:
        """Number of quarter turns to the left that rotate most frames upright, computed from the gravity axis."""
        _, orientations, _ = self._trajectory
        up = orientations.inv().apply(UP).sum(0)  # in the cameras
        turned = [np.linalg.matrix_power(QUARTER_TURN.numpy(), turns) @ up for turns in range(4)]
        return int(np.argmin([y for _, y, _ in turned]))


def sorted_by_time(folder: Path, suffix: str) -> dict[float, Path]:
    """Return the files <scene>_<seconds> of a folder by time in seconds, sorted."""
    return dict(sorted((seconds(path.stem), path) for path in folder.glob(f"[!.]*{suffix}")))


def nearest_time(files: Mapping[float, Path], time: float) -> float | None:
    """Return the time of the file nearest to `time` if they differ by at most `TIME_TOLERANCE`, else None."""
    closest = min(files, key=lambda other: abs(other - time), default=None)
    return closest if closest is not None and abs(closest - time) <= TIME_TOLERANCE else None


def rotate_view(view: View, quarter_turns: int) -> View:
    """Rotate image, depth, intrinsics and pose of a view to the left by quarter turns."""
    for _ in range(quarter_turns):
        _, width = view.depth.shape
        (fx, _, cx), (_, fy, cy), _ = view.intrinsics.tolist()
        view = replace(
            view,
            **{
                name: torch.rot90(getattr(view, name), 1, (-2, -1)).contiguous()
                for name in ("image", "depth", "valid", "sky")
            },
            intrinsics=torch.tensor([[fy, 0, cy], [0, fx, width - 1 - cx], [0, 0, 1]]),
            cam_from_world=QUARTER_TURN @ view.cam_from_world,
        )
    return view


def camera_row(_: str, view: View) -> list[float]:
    """Return the row of a view in the table of its scene: width, height, fx, fy, cx, cy in pixels."""
    K = view.intrinsics
    return [*view.depth.shape[::-1], *K.diagonal()[:2].tolist(), *K[:2, 2].tolist()]


def write_scene(
    source: type[ARKitFrames], folder: Path, frames: Iterator[tuple[str, View]], groups: Callable | None
) -> list[str]:
    """Write the frames of a scene and its table. Returns the names of the frames.

    Args:
        source: Reader class of the set.
        folder: Folder of the scene.
        frames: Names and views.
        groups: Function that finds overlapping frames, or None for a set without groups.

    Raises:
        SkipScene: If there are no frames.
    """
    table, names = SceneTable(camera_row, groups), []
    for name, view in frames:
        source.files.write(folder, name, view)
        table.add(f"{name}.png", view)
        names.append(name)
    if not names:
        raise SkipScene("no frame has colors, depth, intrinsics and a pose")
    table.write(folder / source.table)
    return names


def write_clips(
    source: type[ARKitFrames], out: Path, clips: Sequence[Clip], first_scene: int, groups: Callable | None
) -> list[WrittenScene]:
    """Write fixtures into the training split, ten frames per second."""
    written = []
    for number, clip in enumerate(clips):
        scene = str(first_scene + number)
        times = [FIRST_SECOND + 0.1 * frame for frame in range(len(clip))]
        frames = ((f"{scene}_{time:.3f}", view) for time, view in zip(times, clip, strict=True))
        folder = out / source.folder / source.split_folders["train"] / scene
        written.append(WrittenScene(scene, write_scene(source, folder, frames, groups)))
    return written
