"""What a prediction is compared with: a teacher's prediction, or measurements.

B sequences · S frames · H×W pixels · K points.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor

from streamvggt.data.view import Batch
from streamvggt.geometry.camera import Cameras, compose_poses, invert_pose, pose_enc_from_cameras
from streamvggt.geometry.pointmap import unproject
from streamvggt.losses.target import Target
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction


class Supervision(Protocol):
    """Where targets come from."""

    requires_queries: bool
    """Whether every batch has points to track."""

    def query_points(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """Points of the first frame for the track head, in pixels; None: nothing to track. (B, K, 2)

        The batch is still on the host, where points can be drawn without waiting for the device.
        """

    def __call__(
        self, batch: Batch, heads: Collection[str], query_points: Tensor | None, patches: Tensor | None
    ) -> Target:
        """The target of a batch, as far as `heads` need it; `patches` are the teacher's if it shares its encoder."""


class Teacher:
    """A frozen network that sees all frames: distillation (StreamVGGT, arXiv 2507.11539, §3.3).

    Sequences without any measurement, such as videos, are supervised at every pixel.
    """

    requires_queries = True

    def __init__(self, model: VGGT, num_queries: int = 64):
        """
        Args:
            num_queries: points to track, drawn from the valid pixels of the first frame.
        """
        self.model = model.eval().requires_grad_(False)
        self.num_queries = num_queries

    def query_points(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return sample_queries(batch.valid[:, 0], self.num_queries, generator)

    @torch.no_grad()
    def __call__(
        self, batch: Batch, heads: Collection[str], query_points: Tensor | None, patches: Tensor | None
    ) -> Target:
        prediction = self.model(batch.images, heads=heads, query_points=query_points, patch_tokens=patches)
        return Target(prediction, valid=supervised(batch), sky=batch.sky, is_metric=batch.is_metric)


class GroundTruth:
    """What the data set knows, in the network's own form: the first camera is the world."""

    requires_queries = False

    def __init__(self, *, normalize: bool = True):
        """
        Args:
            normalise: the unit is the mean distance of a sequence's valid points from the first camera (VGGT,
                arXiv 2503.11651, §3.4), since images alone do not tell the scale. False keeps the data's unit.
        """
        self.normalize = normalize

    def query_points(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        return None if batch.tracks is None else batch.tracks[:, 0]

    def __call__(
        self, batch: Batch, heads: Collection[str], query_points: Tensor | None, patches: Tensor | None
    ) -> Target:
        with torch.autocast(batch.images.device.type, enabled=False):  # matrix products of poses need all their digits
            return self._target(batch)

    def _target(self, batch: Batch) -> Target:
        image_size = tuple(batch.images.shape[-2:])
        cameras = Cameras(relative_to_first(batch.cam_from_world), batch.intrinsics)
        depth, points = batch.depth, unproject(batch.depth, cameras)
        if self.normalize:
            unit = mean_distance(points, batch.valid)[:, None, None, None]
            rotation, translation = cameras.cam_from_world.split([3, 1], -1)
            cameras = Cameras(torch.cat([rotation, translation / unit], -1), batch.intrinsics)
            depth, points = depth / unit, points / unit[..., None]
        prediction = Prediction(
            image_size,
            pose_enc=pose_enc_from_cameras(cameras, image_size),
            depth=depth[..., None],
            points=points,
            tracks=batch.tracks,
            visibility=None if batch.visibility is None else batch.visibility.float(),
        )
        return Target(prediction, valid=batch.valid, sky=batch.sky, is_metric=batch.is_metric)


def supervised(batch: Batch) -> Tensor:
    """Pixels that a teacher supervises: the measured ones, or all pixels of a sequence without any measurement.

    Returns:
        Bool. (B, S, H, W)
    """
    is_measured = (batch.valid | batch.sky).flatten(1).any(1)
    return batch.valid | ~is_measured[:, None, None, None]


def relative_to_first(cam_from_world: Tensor) -> Tensor:
    """Poses with the first camera as the world. (B, S, 3, 4) → (B, S, 3, 4)"""
    return compose_poses(cam_from_world, invert_pose(cam_from_world[:, :1]))


def mean_distance(points: Tensor, valid: Tensor) -> Tensor:
    """Mean distance of each sequence's valid points from the origin; 1 where there are none.

    (B, S, H, W, 3), (B, S, H, W) → (B,)
    """
    distance = torch.where(valid, points.norm(dim=-1), 0).flatten(1).sum(1)
    count = valid.flatten(1).sum(1)
    return torch.where(count > 0, distance / (count + 1e-3), 1).clamp(1e-6, 1e6)


def sample_queries(valid: Tensor, num_queries: int, generator: torch.Generator) -> Tensor:
    """Random valid pixels of one frame, drawn with replacement; of all its pixels where too few are valid.

    Args:
        valid: On the host. (B, H, W) bool
        generator: on the CPU, so that every device draws the same.

    Returns:
        (x, y), float, on the host. (B, num_queries, 2)
    """
    queries = []
    for mask in valid:
        where = mask.nonzero()  # (n, 2): y, x
        if len(where) < num_queries:
            where = torch.ones_like(mask).nonzero()
        drawn = torch.randint(0, len(where), (num_queries,), generator=generator)
        queries.append(where[drawn].flip(-1).float())
    return torch.stack(queries)
