"""Files of one frame: color image, depth and camera. One description reads and writes them.

H×W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamvggt.data.dataset_reader import make_view
from streamvggt.data.decode import decoding, read_exr, read_image, read_mask, read_npy, read_npz, read_png16, write_exr
from streamvggt.data.encode import depth_array, world_from_cam, write_image, write_png
from streamvggt.data.file_index import FileIndex
from streamvggt.data.view import View


@dataclass(frozen=True)
class StoredFrame:
    """Contents of the files of a frame, before they are checked.

    path: File that error messages name for the frame.
    image: RGB. (H, W, 3) uint8
    depth: In the unit of the data set; unknown where not finite or not positive. (H, W)
    intrinsics: In pixels. (3, 3)
    world_from_cam: (4, 4)
    sky: (H, W) bool, or None if the set does not mark the sky.
    more: Further arrays of the camera file.
    """

    path: Path
    image: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    world_from_cam: np.ndarray
    sky: np.ndarray | None = None
    more: dict[str, np.ndarray] = field(default_factory=dict)

    def view(self, is_metric: bool) -> View:
        """Check the frame and convert it.

        Raises:
            DataError: If sizes differ, the camera is skewed or the pose is not a rigid motion.
        """
        return make_view(
            self.path,
            image=self.image,
            depth=self.depth,
            intrinsics=self.intrinsics,
            world_from_cam=self.world_from_cam,
            is_metric=is_metric,
            sky=self.sky,
        )


@dataclass(frozen=True)
class CameraFile:
    """An .npz file with the camera of one frame.

    path: "{}" stands for the name of the frame.
    intrinsics: Key of the intrinsics.
    pose: Key of the world-from-camera pose (4, 4), or the keys of its rotation and translation.
    more: Keys of further arrays.
    dtype: Number format of written files.
    """

    path: str
    intrinsics: str = "intrinsics"
    pose: str | tuple[str, str] = "pose"
    more: tuple[str, ...] = ()
    dtype: type = np.float32

    def read(self, folder: Path, frame: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return the intrinsics, the pose and the further arrays."""
        poses = (self.pose,) if isinstance(self.pose, str) else self.pose
        arrays = read_npz(folder / self.path.format(frame), self.intrinsics, *poses, *self.more)
        pose = arrays[poses[0]]
        if len(poses) > 1:
            with decoding(folder / self.path.format(frame), f"{poses[0]} (3, 3) and {poses[1]} (3,)"):
                pose = np.vstack([np.column_stack([arrays[key] for key in poses]), [0, 0, 0, 1]])
        return arrays[self.intrinsics], pose, {key: arrays[key] for key in self.more}

    def write(self, folder: Path, frame: str, intrinsics: np.ndarray, pose: np.ndarray, **more) -> None:
        path = folder / self.path.format(frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        pose = np.asarray(pose, self.dtype)
        poses = (
            {self.pose: pose}
            if isinstance(self.pose, str)
            else dict(zip(self.pose, (pose[:3, :3], pose[:3, 3]), strict=True))
        )
        np.savez(path, **{self.intrinsics: np.asarray(intrinsics, self.dtype)}, **poses, **more)


@dataclass(frozen=True)
class FrameFiles:
    """Files of a frame in the folder of its scene; "{}" stands for the name of the frame.

    image: Color image.
    depth: Depth, by suffix: .npy and .exr in the unit of the set, .png with 16 bits and `steps` per unit.
    camera: Camera of each frame, or None if the set stores cameras elsewhere.
    mask: 8-bit mask of the object.
    steps: Steps of a depth .png per unit.
    image_kind: Format of written images if the suffix says otherwise.
    """

    image: str
    depth: str
    camera: CameraFile | None = None
    mask: str | None = None
    steps: float = 1000
    image_kind: str | None = None

    def scenes(self, listing: FileIndex, root: Path) -> dict[str, list[str]]:
        """Return the frames of every folder in `root`."""
        return {scene: self.names(listing, root / scene) for scene in listing.folders(root)}

    def names(self, listing: FileIndex, folder: Path) -> list[str]:
        """Return the names of the frames that have an image, sorted."""
        inside, _, name = self.image.rpartition("/")
        return listing.files(folder / inside, name.removeprefix("{}"))

    def image_path(self, folder: Path, frame: str) -> Path:
        return folder / self.image.format(frame)

    def depth_path(self, folder: Path, frame: str) -> Path:
        return folder / self.depth.format(frame)

    def read(self, folder: Path, frame: str, camera: tuple[np.ndarray, np.ndarray] | None = None) -> StoredFrame:
        """Read the files of a frame.

        Args:
            camera: Intrinsics and world-from-camera pose, for sets without camera files.

        Raises:
            DataError, OSError: If a file is damaged or missing.
        """
        path = self.image_path(folder, frame)
        intrinsics, pose, more = (*camera, {}) if camera else self.camera.read(folder, frame)
        return StoredFrame(path, read_image(path), self.read_depth(folder, frame), intrinsics, pose, more=more)

    def read_depth(self, folder: Path, frame: str) -> np.ndarray:
        """Read the depth in the unit of the set. (H, W)"""
        path = self.depth_path(folder, frame)
        if path.suffix == ".png":
            return read_png16(path) / self.steps
        return read_npy(path) if path.suffix == ".npy" else read_exr(path)

    def read_mask(self, folder: Path, frame: str) -> np.ndarray:
        """Read the mask. (H, W) uint8"""
        return read_mask(folder / self.mask.format(frame))

    def write(self, folder: Path, frame: str, view: View, depth: np.ndarray | None = None, **more) -> None:
        """Write all files of a frame, with the object ids of the view as mask.

        Args:
            depth: Depth to write in place of the view's, e.g. with a marked sky. (H, W)
            more: Further arrays of the camera file.
        """
        write_image(self.image_path(folder, frame), view, self.image_kind)
        self.write_depth(folder, frame, depth_array(view) if depth is None else depth)
        if self.mask:
            write_png(folder / self.mask.format(frame), view.instance_ids.numpy().astype(np.uint8))
        if self.camera:
            self.camera.write(folder, frame, view.intrinsics.numpy(), world_from_cam(view), **more)

    def write_depth(self, folder: Path, frame: str, depth: np.ndarray) -> None:
        """Write depth in the unit of the set; a .png stores 0 for depth beyond its range. (H, W)"""
        path = self.depth_path(folder, frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            write_png(path, fixed_point(depth, self.steps))
        elif path.suffix == ".npy":
            np.save(path, np.asarray(depth, np.float32))
        else:
            write_exr(path, depth)


def fixed_point(depth: np.ndarray, steps: float) -> np.ndarray:
    """Round depth to 16-bit steps; 0 where it does not fit. (H, W) → (H, W) uint16"""
    values = np.round(np.asarray(depth, np.float64) * steps)
    return np.where(values < 1 << 16, values, 0).astype(np.uint16)
