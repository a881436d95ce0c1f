"""Base class of training sets. A subclass describes files and storage formats.

    class MySet(DatasetReader):
        name, folder, is_metric = "My Set", "my_set", True
        view_sampler = ClipSampler(max_interval=25)

        def list_scenes(self, listing):
            return {scene: listing.files(self.root / scene, ".jpg") for scene in listing.folders(self.root)}

        def read(self, scene, frame):
            camera = read_npz(self.root / scene / f"{frame}.npz", "intrinsics", "pose")
            return self.view(...)

One module per data set in `streamvggt.datasets`, found by its name. Conventions: docs/conventions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.decode import DataError
from streamvggt.data.file_index import FileIndex, cached
from streamvggt.data.sampling import ViewSampler
from streamvggt.data.view import View
from streamvggt.geometry.camera import invert_pose


class DatasetReader:
    """Scenes, their frames in temporal order, and views.

    Attributes:
        name: Name as written by the authors.
        folder: Folder under the root of all data sets.
        is_metric: Whether the unit is the meter.
        view_sampler: Selection of the views of a training sample.
        splits: Names of the splits. The first is the training split.
        mask_prob: Probability that the depth outside `foreground` is removed from a sample.
        replace_empty_depth: Whether a view without depth is replaced by a neighbor.
        docs_page: Page with download instructions.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    is_metric: ClassVar[bool]
    view_sampler: ClassVar[ViewSampler]
    splits: ClassVar[Sequence[str]] = ("train",)
    mask_prob: ClassVar[float] = 0.0
    replace_empty_depth: ClassVar[bool] = False
    docs_page: ClassVar[str] = "docs/data.md"

    def __init__(self, root: str | Path, split: str | None = None):
        """Open a data set.

        Args:
            root: Folder of the data set.
            split: One of `splits`. None selects the first.

        Raises:
            FileNotFoundError: If the folder does not exist.
        """
        self.root = Path(root)
        self.split = self.splits[0] if split is None else split
        if self.split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}, only {', '.join(self.splits)}")
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"{self.name}: no folder at {self.root}; {self.docs_page} describes its download and preparation"
            )
        self._frames = cached(self.list_scenes, self.root, type(self).__name__, self.split)
        self.scenes = sorted(self._frames)

    def frames(self, scene: str) -> list[str]:
        """Return the frame names of a scene in temporal order."""
        if scene not in self._frames:
            raise KeyError(f"{self.name} has no scene {scene!r} in its split {self.split}")
        return self._frames[scene]

    # Methods that a data set overrides.

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        """Return scene names with their frame names in temporal order.

        Access the disk only through `listing`, so that the result can be cached until the data change.
        """
        raise NotImplementedError

    def read(self, scene: str, frame: str) -> View:
        """Read a frame in its stored size.

        Raises:
            DataError: If a file is damaged.
            OSError: If a file is missing.
        """
        raise NotImplementedError

    def view_sampler_for(self, scene: str) -> ViewSampler:
        """Return the view sampler of a scene, for data sets with different kinds of scenes."""
        return self.view_sampler

    def segments(self, scene: str) -> list[Sequence[int]]:
        """Return the positions of consecutive frames of one camera. Scenes with several cameras have several."""
        return [range(len(self.frames(scene)))]

    def groups(self, scene: str) -> Sequence[Sequence[int]]:
        """Return the positions of frames with common content. The first of each group is its reference frame."""
        raise NotImplementedError

    def overlap(self, scene: str) -> tuple[np.ndarray, np.ndarray]:
        """Return directed pairs of frame positions and their overlap. int (2, M), float (M,)"""
        raise NotImplementedError

    def foreground(self, scene: str, frame: str) -> Tensor:
        """Return the object mask for `mask_prob`. (H, W) bool"""
        raise NotImplementedError

    def view(self, path: Path, **fields) -> View:
        """Create a view as `make_view`, in the unit of the data set."""
        return make_view(path, is_metric=self.is_metric, **fields)


def make_view(
    path: Path,
    *,
    image: np.ndarray,
    depth: np.ndarray,
    intrinsics: np.ndarray,
    world_from_cam: np.ndarray,
    is_metric: bool,
    sky: np.ndarray | None = None,
) -> View:
    """Create a validated view.

    Args:
        path: Path that identifies the frame in errors.
        image: RGB. (H, W, 3) uint8
        depth: In units of the data set; values that are not finite and positive are unknown. (H, W)
        intrinsics: In pixels; the center of the first pixel is (0, 0). (3, 3)
        world_from_cam: Pose, OpenCV axes. (4, 4) or (3, 4)
        is_metric: Whether the unit is the meter.
        sky: (H, W) bool. None if unknown.

    Raises:
        DataError: If sizes differ, the intrinsics are skewed, or the pose is not a rigid motion.
    """
    if image.shape[:2] != depth.shape:
        raise DataError(f"{path}: the image has {image.shape[:2]} pixels, its depth {depth.shape}")
    intrinsics, pose = np.asarray(intrinsics, np.float64), np.asarray(world_from_cam, np.float64)
    validate_intrinsics(intrinsics, path)
    validate_pose(pose, path)
    depth = torch.from_numpy(np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32))
    if sky is not None:
        depth = depth.masked_fill(torch.from_numpy(sky), 0)
    return View(
        image=torch.from_numpy(image).permute(2, 0, 1).float().div_(255),
        depth=depth,
        valid=depth > 0,
        sky=torch.zeros_like(depth, dtype=torch.bool) if sky is None else torch.from_numpy(sky),
        intrinsics=torch.from_numpy(intrinsics).float(),
        cam_from_world=invert_pose(torch.from_numpy(pose[:3])).float(),
        is_metric=is_metric,
    )


def validate_intrinsics(intrinsics: np.ndarray, path: Path) -> None:
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        raise DataError(f"{path}: finite 3×3 intrinsics were expected, they are {intrinsics.tolist()}")
    if intrinsics[0, 1] or intrinsics[1, 0]:
        raise DataError(
            f"{path}: the camera is skewed ({intrinsics[0, 1]:g}, {intrinsics[1, 0]:g}); undistort it first"
        )
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise DataError(f"{path}: focal lengths must be positive, they are {intrinsics[0, 0]:g}, {intrinsics[1, 1]:g}")


def validate_pose(pose: np.ndarray, path: Path) -> None:
    if pose.shape not in ((4, 4), (3, 4)) or not np.isfinite(pose).all():
        raise DataError(f"{path}: a finite 4×4 pose was expected, it is {pose.tolist()}")
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise DataError(f"{path}: the pose's rotation is none: {np.round(rotation, 4).tolist()}")
