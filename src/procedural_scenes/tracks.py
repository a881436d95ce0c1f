"""Track surface points of the first frame through all frames.

B scenes · S frames · K points. Conventions: docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from procedural_scenes.environment import NUM_FACES
from procedural_scenes.raycast import RayBatch, intersect
from procedural_scenes.render import RenderOutput
from procedural_scenes.rng import SceneRNG
from procedural_scenes.scene import Scenes
from streamvggt.geometry.camera import Cameras
from streamvggt.geometry.pointmap import project, unproject

TOLERANCE = 1e-3
"""Minimum relative distance between an occluder and an occluded point."""


@dataclass(frozen=True)
class Tracks:
    """Point tracks.

    Attributes:
        positions: (x, y) in pixels, also outside the image. (B, S, K, 2)
        visibility: Whether the point is inside the image, in front of the camera and not occluded. (B, S, K) bool
        points: World points at the time of each frame. (B, S, K, 3)
    """

    positions: Tensor
    visibility: Tensor
    points: Tensor


def sample_tracks(
    scenes: Scenes, cameras: Cameras, times: Tensor, pictures: RenderOutput, num_tracks: int, dice: SceneRNG
) -> Tracks:
    """Sample random pixels of the first frames and track their surface points with the motion of their objects.

    If a first frame has fewer surface pixels than `num_tracks`, pixels repeat. Without surface pixels no point is
    visible.
    """
    _, num_frames, height, width = pictures.depth.shape
    first_depth, first_ids = pictures.depth[:, 0].flatten(1), pictures.instance_ids[:, 0].flatten(1)
    known = first_depth > 0
    order = dice.uniform(shape=(height * width,)).masked_fill(~known, 2).argsort(dim=1, stable=True)  # surface first
    turn = torch.arange(num_tracks, device=times.device) % known.sum(1, keepdim=True).clamp(min=1)
    pixel = order.gather(1, turn)  # (B, K)
    exists = known.gather(1, pixel)
    first = Cameras(cameras.cam_from_world[:, 0], cameras.intrinsics[:, 0])
    points = unproject(pictures.depth[:, 0], first).flatten(1, 2)
    points = points.gather(1, pixel[..., None].expand(-1, -1, 3))  # (B, K, 3)
    item = first_ids.gather(1, pixel) - (1 + NUM_FACES)

    poses = scenes.item_poses(times)  # (B, S, I, 3, 4)
    index = item.clamp(min=0)[:, None, :, None, None].expand(-1, num_frames, -1, 3, 4)
    poses = poses.gather(2, index)  # (B, S, K, 3, 4)
    on_item = poses[:, :1, ..., :3].transpose(-1, -2) @ (points[:, None] - poses[:, :1, ..., 3])[..., None]
    carried = (poses[..., :3] @ on_item)[..., 0] + poses[..., 3]
    points = torch.where((item >= 0)[:, None, :, None], carried, points[:, None])  # (B, S, K, 3)

    positions, depth = project(points, cameras)
    # The image extends half a pixel beyond the first and last pixel centers.
    size = torch.tensor([width, height], device=times.device)
    inside = ((positions >= -0.5) & (positions < size - 0.5)).all(-1) & (depth > 0.01)
    visible = inside & exists[:, None] & ~_is_occluded(scenes, cameras, times, points)
    return Tracks(positions, visible, points)


def _is_occluded(scenes: Scenes, cameras: Cameras, times: Tensor, points: Tensor) -> Tensor:
    """Whether points are occluded, tested exactly by ray casting. (B, S, K) bool"""
    origin = cameras.world_from_cam[..., 3].flatten(0, 1)  # (F, 3)
    direction = points.flatten(0, 1).mT - origin[..., None]
    frame = torch.arange(len(origin), device=times.device)
    hits = intersect(scenes.primitives(times).flatten(), RayBatch(frame, origin, direction.contiguous()))
    return (hits.distance < 1 - TOLERANCE).view(points.shape[:-1])
