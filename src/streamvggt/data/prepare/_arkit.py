"""What the preparations of both forms of ARKitScenes share: cameras, times, and turning recordings upright."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from streamvggt.data.decode import BadData, read_colour
from streamvggt.data.encode import millimetres, write_image, write_png
from streamvggt.data.source import checked_view
from streamvggt.data.sources._arkit import ARKitFrames, seconds
from streamvggt.data.transforms import nearest
from streamvggt.data.view import View

SAME_TIME = 0.009  # seconds; the depth sensor's frames are 1/60 apart
LOST = 0.5  # seconds without a pose, after which the way between two is a guess
QUARTER_TURN = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # a picture turned to the left, from as it was
UP = np.array([0.0, 0, 1])  # of the world


def raw_scenes(raw: Path, splits: Mapping[str, Sequence[str]], needed: str) -> list[str]:
    """Scenes that have a folder `needed`, as "Training/40000001".

    Args:
        splits: by the split's prepared folder, the names that its raw folder may have.
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
    """A scene as it was downloaded."""

    folder: Path

    @cached_property
    def images(self) -> dict[float, Path]:
        return by_time(self.folder / "vga_wide", ".png")

    @cached_property
    def pincams(self) -> dict[float, Path]:
        return by_time(self.folder / "vga_wide_intrinsics", ".pincam")

    @cached_property
    def _way(self) -> tuple[np.ndarray, Rotation, np.ndarray]:
        """Times, orientations and places: world-from-camera."""
        rows = np.atleast_2d(np.loadtxt(self.folder / "lowres_wide.traj"))
        if rows.shape[1] != 7 or len(rows) < 2:
            raise BadData(f"{self.folder}/lowres_wide.traj: rows of 7 numbers were expected, it is {rows.shape}")
        rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
        # A line's rotation and translation take the world into the camera.
        world_from_cam = Rotation.from_rotvec(rows[:, 1:4]).inv()
        return rows[:, 0], world_from_cam, -world_from_cam.apply(rows[:, 4:7])

    @cached_property
    def _orientation_at(self) -> Slerp:
        times, orientations, _ = self._way
        return Slerp(times, orientations)

    def pose(self, time: float) -> np.ndarray | None:
        """World-from-camera between the poses before and after; None where there are none near. (4, 4)"""
        times, _, places = self._way
        after = np.searchsorted(times, time)
        if not times[0] <= time <= times[-1] or (after and times[after] - times[after - 1] > LOST):
            return None
        pose = np.eye(4)
        pose[:3, :3] = self._orientation_at(time).as_matrix()
        pose[:3, 3] = [np.interp(time, times, places[:, axis]) for axis in range(3)]
        return pose

    def view(self, time: float, millimetres: np.ndarray) -> View | None:
        """The frame taken at a time; None if its pose or its camera are not known.

        Args:
            millimetres: depth of any size. (h, w)
        """
        pose, pincam = self.pose(time), at_time(self.pincams, time)
        if pose is None or pincam is None:
            return None
        path = self.images[time]
        image = read_colour(path)
        width, height, fx, fy, cx, cy = np.loadtxt(self.pincams[pincam])
        if image.shape[:2] != (height, width):
            raise BadData(f"{path} has {image.shape[:2]} pixels, its .pincam says {(int(height), int(width))}")
        rows, columns = (nearest(a, b) for a, b in zip(millimetres.shape, image.shape[:2], strict=True))
        return checked_view(
            path,
            image=image,
            depth=millimetres[rows[:, None], columns] / 1000,
            intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            world_from_cam=pose,
            is_metric=True,
        )

    @cached_property
    def quarter_turns(self) -> int:
        """To the left, after which most frames are upright; the download's own word on it is often wrong."""
        _, orientations, _ = self._way
        up = orientations.inv().apply(UP).sum(0)  # in the cameras
        turned = [np.linalg.matrix_power(QUARTER_TURN.numpy(), turns) @ up for turns in range(4)]
        return int(np.argmin([y for _, y, _ in turned]))


def by_time(folder: Path, suffix: str) -> dict[float, Path]:
    """Files <scene>_<seconds> of a folder, in the order of time."""
    return dict(sorted((seconds(path.stem), path) for path in folder.glob(f"[!.]*{suffix}")))


def at_time(files: Mapping[float, Path], time: float) -> float | None:
    """The time nearest to another, if they are the same but for the clock's rounding."""
    closest = min(files, key=lambda other: abs(other - time), default=None)
    return closest if closest is not None and abs(closest - time) <= SAME_TIME else None


def turn(view: View, quarter_turns: int) -> View:
    """The picture turned to the left, with the camera that would have taken it so."""
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


def write_frame(source: type[ARKitFrames], folder: Path, name: str, view: View) -> None:
    write_image(folder / f"vga_wide/{name}.jpg", view)
    write_png(folder / source.depth_folder / f"{name}.png", millimetres(view))


def camera_row(_: str, view: View) -> list[float]:
    """As in the scene's table: width, height, fx, fy, cx, cy."""
    K = view.intrinsics
    return [*view.depth.shape[::-1], *K.diagonal()[:2].tolist(), *K[:2, 2].tolist()]
