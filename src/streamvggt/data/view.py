"""Frames with ground truth: single (`View`), and stacked for training (`Batch`).

Conventions: docs/conventions.md. B sequences · S frames · H×W pixels · K tracked points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import unproject


@dataclass(frozen=True)
class View:
    """One frame with its ground truth in the world of the scene.

    Attributes:
        image: RGB in [0, 1]. (3, H, W)
        depth: Distance along the optical axis in scene units; 0 if unknown. (H, W)
        valid: Whether `depth` is known. (H, W) bool
        sky: Whether the pixel shows the sky. (H, W) bool
        intrinsics: In pixels of `image`. (3, 3)
        cam_from_world: [R | t]. (3, 4)
        is_metric: Whether the scene unit is the meter.
        instance_ids: Object ids of the scene; 0 is the sky. (H, W) int64, or None.
    """

    image: Tensor
    depth: Tensor
    valid: Tensor
    sky: Tensor
    intrinsics: Tensor
    cam_from_world: Tensor
    is_metric: bool = False
    instance_ids: Tensor | None = None

    @property
    def cameras(self) -> Cameras:
        return Cameras(self.cam_from_world, self.intrinsics)

    def points(self) -> Tensor:
        """Return world points; undefined where not `valid`. (H, W, 3)"""
        return unproject(self.depth, self.cameras)

    def to(self, *args, **kwargs) -> View:
        """Apply `Tensor.to` to every field."""
        return _map(self, lambda tensor: tensor.to(*args, **kwargs))


@dataclass(frozen=True)
class Batch:
    """B sequences of S frames each, in the worlds of their scenes (not in the first camera).

    Attributes:
        images: RGB in [0, 1]. (B, S, 3, H, W)
        depth: Distance along the optical axis in scene units; 0 if unknown. (B, S, H, W)
        valid: Whether `depth` is known. (B, S, H, W) bool
        sky: Whether the pixel shows the sky. (B, S, H, W) bool
        intrinsics: In pixels. (B, S, 3, 3)
        cam_from_world: [R | t]. (B, S, 3, 4)
        is_metric: Whether the scene unit is the meter. (B,) bool
        tracks: Positions (x, y) of K points of the first frame in each frame, in pixels. (B, S, K, 2)
        visibility: Whether the points are visible; points that are never visible are invalid. (B, S, K) bool
        instance_ids: Object ids; 0 is the sky. (B, S, H, W) int64
    """

    images: Tensor
    depth: Tensor
    valid: Tensor
    sky: Tensor
    intrinsics: Tensor
    cam_from_world: Tensor
    is_metric: Tensor
    tracks: Tensor | None = None
    visibility: Tensor | None = None
    instance_ids: Tensor | None = None

    @property
    def num_sequences(self) -> int:
        return self.images.shape[0]

    @property
    def num_frames(self) -> int:
        return self.images.shape[1]

    @property
    def cameras(self) -> Cameras:
        return Cameras(self.cam_from_world, self.intrinsics)

    def points(self) -> Tensor:
        """Return world points; undefined where not `valid`. (B, S, H, W, 3)"""
        return unproject(self.depth, self.cameras)

    def to(self, *args, **kwargs) -> Batch:
        """Apply `Tensor.to` to every field."""
        return _map(self, lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """Apply `Tensor.pin_memory` to every field. `DataLoader` calls it."""
        return _map(self, lambda tensor: tensor.pin_memory())

    def view(self, sequence: int, frame: int) -> View:
        """Return one frame of one sequence without tracks."""
        ids = self.instance_ids
        return View(
            self.images[sequence, frame],
            self.depth[sequence, frame],
            self.valid[sequence, frame],
            self.sky[sequence, frame],
            self.intrinsics[sequence, frame],
            self.cam_from_world[sequence, frame],
            bool(self.is_metric[sequence]),
            None if ids is None else ids[sequence, frame],
        )


def stack(sequences: Sequence[Sequence[View]]) -> Batch:
    """Stack sequences of views into a batch without tracks.

    Raises:
        ValueError: If there are no views, or they differ in length or size, or a sequence mixes metric and other views.
    """
    if not sequences or not sequences[0]:
        raise ValueError("stack: no views")
    if len({len(views) for views in sequences}) > 1:
        raise ValueError(f"stack: sequences of different lengths {sorted({len(views) for views in sequences})}")
    sizes = {tuple(view.image.shape[-2:]) for views in sequences for view in views}
    if len(sizes) > 1:
        raise ValueError(f"stack: views of different sizes {sorted(sizes)}; resize them first")
    if any(len({view.is_metric for view in views}) > 1 for views in sequences):
        raise ValueError("stack: a sequence mixes metric and other views")

    def stacked(name: str) -> Tensor:
        return torch.stack([torch.stack([getattr(view, name) for view in views]) for views in sequences])

    has_ids = all(view.instance_ids is not None for views in sequences for view in views)
    return Batch(
        images=stacked("image"),
        depth=stacked("depth"),
        valid=stacked("valid"),
        sky=stacked("sky"),
        intrinsics=stacked("intrinsics"),
        cam_from_world=stacked("cam_from_world"),
        is_metric=torch.tensor([views[0].is_metric for views in sequences], device=sequences[0][0].image.device),
        instance_ids=stacked("instance_ids") if has_ids else None,
    )


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Concatenate the sequences of batches. Fields that are missing in one batch are dropped."""
    values = {field.name: [getattr(batch, field.name) for batch in batches] for field in fields(Batch)}
    return Batch(**{n: None if any(v is None for v in vs) else torch.cat(vs) for n, vs in values.items()})


def _map(record, function: Callable[[Tensor], Tensor]):
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return type(record)(**{n: function(v) if isinstance(v, Tensor) else v for n, v in values.items()})
