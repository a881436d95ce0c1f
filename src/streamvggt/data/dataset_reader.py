"""What a data set must say of itself: where things are and how they are stored. All else is shared.

    class MySet(Source):
        name, folder, is_metric = "My Set", "my_set", True
        selection = Clips(max_interval=25)

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
    """Scenes, their frames in the order of time, and views of them.

    name: as its authors write it.
    folder: where it lies under the root of all data sets.
    is_metric: whether its unit is the metre.
    selection: how the views of a training sample are chosen.
    splits: names it can be asked for; the first is the one to train on.
    mask_share: share of samples that lose the depth outside `foreground`.
    replaces_empty: whether a view without any depth is replaced by a neighbour.
    page: that says where to get it.
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
        """
        Args:
            root: the data set's own folder.
            split: one of `splits`; None: the first of them.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        self.root = Path(root)
        self.split = self.splits[0] if split is None else split
        if self.split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}, only {', '.join(self.splits)}")
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"{self.name}: there is no folder {self.root}; {self.docs_page} says where to get it and how to "
                f"prepare it"
            )
        self._frames = cached(self.list_scenes, self.root, type(self).__name__, self.split)
        self.scenes = sorted(self._frames)

    def frames(self, scene: str) -> list[str]:
        """Names of the frames of a scene, in the order of time."""
        if scene not in self._frames:
            raise KeyError(f"{self.name} has no scene {scene!r} in its split {self.split}")
        return self._frames[scene]

    # What a data set says.

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        """Names of scenes, and of the frames of each in the order of time.

        Looks at the disk only through `listing`, so that the result can be cached until the data change.
        """
        raise NotImplementedError

    def read(self, scene: str, frame: str) -> View:
        """A frame in its stored size.

        Raises:
            DataError, OSError: a file is damaged or missing.
        """
        raise NotImplementedError

    def view_sampler_for(self, scene: str) -> ViewSampler:
        """For data sets whose scenes are not all alike."""
        return self.view_sampler

    def segments(self, scene: str) -> list[Sequence[int]]:
        """Positions of frames that one camera took one after the other; more than one where cameras share a scene."""
        return [range(len(self.frames(scene)))]

    def groups(self, scene: str) -> Sequence[Sequence[int]]:
        """Positions of frames that see the same things; the first of each is what the others were chosen for."""
        raise NotImplementedError

    def overlap(self, scene: str) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of frames by position, directed, and how much they share. int (2, M), float (M,)"""
        raise NotImplementedError

    def foreground(self, scene: str, frame: str) -> Tensor:
        """Where the object is, for `mask_share`. (H, W) bool"""
        raise NotImplementedError

    def view(self, path: Path, **fields) -> View:
        """As `make_view`, in the data set's unit."""
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
    """A view of what was read, checked.

    Args:
        path: of what stands for the frame in errors.
        image: RGB. (H, W, 3) uint8
        depth: in the data set's unit; what is not finite and positive is unknown. (H, W)
        intrinsics: in pixels; the centre of the first pixel is (0, 0). (3, 3)
        world_from_cam: pose, OpenCV axes. (4, 4) or (3, 4)
        is_metric: whether the unit is the metre.
        sky: (H, W) bool; None: nothing is known to be sky.

    Raises:
        DataError: sizes disagree, the camera is skewed or its pose is no rigid motion.
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
