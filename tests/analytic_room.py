"""A walk in a box-shaped room whose walls are painted in waves: depth and colors are formulas."""

import math

import torch

from experiments.simulated_model import GroundTruthVideo
from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.pointmap import pixel_grid

HEIGHT, WIDTH = 42, 56
HALF = torch.tensor([6.0, 2.0, 5.0], dtype=torch.float64)
"""Half the room's sides."""


def walk(num_frames: int, laps: float = 1.0) -> torch.Tensor:
    """Cameras on an ellipse, looking outwards; after a lap the same ones again. (S, 3, 4)"""
    angle = 2 * math.pi * laps * torch.arange(num_frames, dtype=torch.float64) / num_frames
    cos, sin, zero, one = angle.cos(), angle.sin(), 0 * angle, 1 + 0 * angle
    rotation = torch.stack([-sin, zero, cos, zero, -one, zero, cos, zero, sin], -1).unflatten(-1, (3, 3))
    center = torch.stack([3 * cos, 0.3 * (2 * angle).sin(), 2.5 * sin], -1)
    return invert_pose(torch.cat([rotation, center[..., None]], -1))


def look(cam_from_world: torch.Tensor) -> GroundTruthVideo:
    """What cameras in the room see."""
    intrinsics = torch.tensor([[30.0, 0, WIDTH / 2], [0, 30, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    pixels = pixel_grid(HEIGHT, WIDTH, intrinsics)
    ray = torch.cat([(pixels - intrinsics[:2, 2]) / 30, torch.ones(HEIGHT, WIDTH, 1)], -1)  # (H, W, 3)
    world_from_cam = invert_pose(cam_from_world)
    ray = torch.einsum("sij,hwj->shwi", world_from_cam[..., :3], ray)
    ray = torch.where(ray.abs() < 1e-9, 1e-9, ray)
    center = world_from_cam[:, None, None, :, 3]
    depth = ((HALF * ray.sign() - center) / ray).amin(-1)  # (S, H, W)
    hit = center + depth[..., None] * ray
    waves = torch.randn(3, 12, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2.5
    images = 0.5 + 0.5 * torch.einsum("shwi,cki->sckhw", hit, waves).sin().mean(2)
    return GroundTruthVideo(images, depth, cam_from_world, intrinsics)
