"""Points on surfaces of the first frame, followed through all frames.

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
"""How much nearer, relative to the distance, something must be to hide a point."""


@dataclass(frozen=True)
class Tracks:
    """positions: (x, y) in pixels, also outside the image. (B, S, K, 2)
    visibility: in the image, before the camera and not hidden. (B, S, K) bool
    points: in the world, at each frame's time. (B, S, K, 3)
    """

    positions: Tensor
    visibility: Tensor
    points: Tensor


def sample_tracks(
    scenes: Scenes, cameras: Cameras, times: Tensor, pictures: RenderOutput, num_tracks: int, dice: SceneRNG
) -> Tracks:
    """Random pixels of the first frames, with the surface that they show carried along by its thing.

    A first frame with fewer surface pixels than `num_tracks` repeats some; where it has none, nothing is visible.
    """
    _, num_frames, height, width = pictures.depth.shape
    first_depth, first_ids = pictures.depth[:, 0].flatten(1), pictures.instance_ids[:, 0].flatten(1)
    known = first_depth > 0
    order = dice.uniform(shape=(height * width,)).masked_fill(~known, 2).argsort(dim=1, stable=True)  # known ones first
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
    # Inside as an image is: from half a pixel before the first centre to half a pixel after the last.
    size = torch.tensor([width, height], device=times.device)
    inside = ((positions >= -0.5) & (positions < size - 0.5)).all(-1) & (depth > 0.01)
    visible = inside & exists[:, None] & ~_is_occluded(scenes, cameras, times, points)
    return Tracks(positions, visible, points)


def _is_occluded(scenes: Scenes, cameras: Cameras, times: Tensor, points: Tensor) -> Tensor:
    """Whether something stands between cameras and points; by rays, not by depth maps, so exact. (B, S, K) bool"""
    origin = cameras.world_from_cam[..., 3].flatten(0, 1)  # (F, 3)
    direction = points.flatten(0, 1).mT - origin[..., None]
    frame = torch.arange(len(origin), device=times.device)
    hits = intersect(scenes.primitives(times).flatten(), RayBatch(frame, origin, direction.contiguous()))
    return (hits.distance < 1 - TOLERANCE).view(points.shape[:-1])
