"""Frames with their measurements: one (`View`), and the same stacked for training (`Batch`).

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
    """One frame and what is known of it. The world is the scene's own.

    image: RGB in [0, 1]. (3, H, W)
    depth: distance along the optical axis, in the scene's unit; 0 where unknown. (H, W)
    valid: where `depth` is known. (H, W) bool
    sky: where nothing is, however far. (H, W) bool
    intrinsics: in pixels of `image`. (3, 3)
    cam_from_world: [R | t]. (3, 4)
    is_metric: whether the unit is the metre.
    instance_ids: what is seen, numbers of the scene's own; 0 is the sky. (H, W) int64, or None.
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
        """World points; meaningless where not `valid`. (H, W, 3)"""
        return unproject(self.depth, self.cameras)

    def to(self, *args, **kwargs) -> View:
        """As `Tensor.to` of a device, of every field."""
        return _map(self, lambda tensor: tensor.to(*args, **kwargs))


@dataclass(frozen=True)
class Batch:
    """B sequences of S frames each. The world is each scene's own, not the first camera.

    images: RGB in [0, 1]. (B, S, 3, H, W)
    depth: distance along the optical axis; 0 where unknown. (B, S, H, W)
    valid: where `depth` is known. (B, S, H, W) bool
    sky: (B, S, H, W) bool
    intrinsics: (B, S, 3, 3)
    cam_from_world: (B, S, 3, 4)
    is_metric: whether the unit is the metre. (B,) bool
    tracks: where K points of the first frame are in each frame, (x, y) in pixels. (B, S, K, 2)
    visibility: whether they are seen there; a point never seen is none. (B, S, K) bool
    instance_ids: 0 is the sky. (B, S, H, W) int64
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
        """World points; meaningless where not `valid`. (B, S, H, W, 3)"""
        return unproject(self.depth, self.cameras)

    def to(self, *args, **kwargs) -> Batch:
        """As `Tensor.to` of a device, of every field."""
        return _map(self, lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """As `Tensor.pin_memory`, of every field; a `DataLoader` calls this."""
        return _map(self, lambda tensor: tensor.pin_memory())

    def view(self, sequence: int, frame: int) -> View:
        """One frame of one sequence, without the tracks."""
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
    """A batch of sequences of views, without tracks.

    Raises:
        ValueError: there are none, or they differ in length, in size or in whether they are metric within a sequence.
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
    """The sequences of several batches in one; a field that one of them lacks is lost."""
    values = {field.name: [getattr(batch, field.name) for batch in batches] for field in fields(Batch)}
    return Batch(**{n: None if any(v is None for v in vs) else torch.cat(vs) for n, vs in values.items()})


def _map(record, function: Callable[[Tensor], Tensor]):
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return type(record)(**{n: function(v) if isinstance(v, Tensor) else v for n, v in values.items()})
