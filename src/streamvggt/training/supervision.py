"""Sources of training targets: teacher predictions or ground truth.

B sequences · S frames · H×W pixels · K points.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
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
    """Source of targets."""

    requires_queries: bool
    """Whether every batch has query points."""

    def query_points(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """Return query points for the track head, before the batch is copied to the device.

        Args:
            batch: Batch on the host.
            generator: CPU random generator.

        Returns:
            Points (x, y) in pixels of the first frame. None: no tracking. (B, K, 2)
        """

    def __call__(
        self, batch: Batch, heads: Collection[str], query_points: Tensor | None, patches: Tensor | None
    ) -> Target:
        """Compute the target of a batch.

        Args:
            batch: Batch on the device.
            heads: Heads that need a target.
            query_points: Output of `query_points`. (B, K, 2)
            patches: Patch tokens, if teacher and student share the encoder. (B, S, h·w, C + M)
        """


class Teacher:
    """Distillation from a frozen bidirectional network (StreamVGGT, arXiv 2507.11539, Sec. 3.3).

    Sequences without ground truth, such as videos, are supervised at every pixel.
    """

    requires_queries = True

    def __init__(self, model: VGGT, num_queries: int = 64):
        """Create the supervision and freeze the teacher.

        Args:
            model: Teacher.
            num_queries: Number of query points, drawn from the valid pixels of the first frame.
        """
        self.model = model.eval().requires_grad_(False)
        self.num_queries = num_queries

    def query_points(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Draw query points from the valid pixels of the first frame. (B, K, 2)"""
        return sample_queries(batch.valid[:, 0], self.num_queries, generator)

    @torch.no_grad()
    def __call__(
        self, batch: Batch, heads: Collection[str], query_points: Tensor | None, patches: Tensor | None
    ) -> Target:
        prediction = self.model(batch.images, heads=heads, query_points=query_points, patch_tokens=patches)
        return Target(prediction, valid=supervised(batch), sky=batch.sky, is_metric=batch.is_metric)


class GroundTruth:
    """Supervision with the ground truth of the data set. The world is the frame of the first camera."""

    requires_queries = False

    def __init__(self, *, normalize: bool = True):
        """Create the supervision.

        Args:
            normalize: Divide lengths by the mean distance of the valid points of a sequence from the first camera
                (VGGT, arXiv 2503.11651, Sec. 3.4), because images do not determine the scale. False: keep the unit of
                the data.
        """
        self.normalize = normalize

    def query_points(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """Return the ground-truth track positions in the first frame. None: no tracks. (B, K, 2)"""
        return None if batch.tracks is None else batch.tracks[:, 0]

    def __call__(
        self, batch: Batch, heads: Collection[str], query_points: Tensor | None, patches: Tensor | None
    ) -> Target:
        with torch.autocast(batch.images.device.type, enabled=False):  # products of poses need full precision
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
    """Return the pixels that a teacher supervises: annotated pixels, or all pixels of sequences without annotations.

    Returns:
        Bool. (B, S, H, W)
    """
    is_measured = (batch.valid | batch.sky).flatten(1).any(1)
    return batch.valid | ~is_measured[:, None, None, None]


def relative_to_first(cam_from_world: Tensor) -> Tensor:
    """Transform poses to the frame of the first camera. (B, S, 3, 4) → (B, S, 3, 4)"""
    return compose_poses(cam_from_world, invert_pose(cam_from_world[:, :1]))


def mean_distance(points: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean distance of the valid points of each sequence from the origin.

    Args:
        points: Points. (B, S, H, W, 3)
        valid: Valid pixels. Bool (B, S, H, W)

    Returns:
        Distances. 1 for sequences without valid points. (B,)
    """
    distance = torch.where(valid, points.norm(dim=-1), 0).flatten(1).sum(1)
    count = valid.flatten(1).sum(1)
    return torch.where(count > 0, distance / (count + 1e-3), 1).clamp(1e-6, 1e6)


def sample_queries(valid: Tensor, num_queries: int, generator: torch.Generator) -> Tensor:
    """Draw random valid pixels of one frame, with replacement. If too few pixels are valid, draw from all pixels.

    Args:
        valid: Valid pixels, on the host. Bool (B, H, W)
        num_queries: Number of points K.
        generator: CPU random generator, for equal results on all devices.

    Returns:
        Points (x, y) in pixels, float, on the host. (B, K, 2)
    """
    queries = []
    for mask in valid:
        where = mask.nonzero()  # (n, 2): y, x
        if len(where) < num_queries:
            where = torch.ones_like(mask).nonzero()
        drawn = torch.randint(0, len(where), (num_queries,), generator=generator)
        queries.append(where[drawn].flip(-1).float())
    return torch.stack(queries)


def shared_encoder(model: VGGT, supervision: Supervision) -> Callable[[Tensor], Tensor] | None:
    """Return the patch encoder shared by teacher and student. None if the weights differ or the student's learns."""
    if not isinstance(supervision, Teacher):
        return None
    teacher = supervision.model.aggregator
    mine = dict(model.aggregator.patch_embed.named_parameters())
    theirs = dict(teacher.patch_embed.named_parameters())
    same = mine.keys() == theirs.keys() and all(
        not p.requires_grad and p.shape == theirs[name].shape and torch.equal(p, theirs[name])
        for name, p in mine.items()
    )
    return teacher.encode_patches if same else None
