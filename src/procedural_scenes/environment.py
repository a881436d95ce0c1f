"""Surroundings of a scene: the walls of a room, or a ground plane with a distant skyline.

World axes in meters: y points down along gravity, and the floor is y = 0. x and z are horizontal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from procedural_scenes.rng import SceneRNG

NUM_FACES = 6
FLOOR, CEILING = 0, 1
"""Number of faces: floor, ceiling, and the walls at -x, +x, -z, +z. A round wall is face 2."""
SKYLINE_STEPS = 64


@dataclass(frozen=True)
class Environments:
    """B surroundings centered at x = z = 0.

    Attributes:
        half: Half extent along x and z in meters. (B, 2)
        height: Height of the ceiling in meters. (B,)
        open_air: Without a ceiling, and with walls up to the skyline. (B,) bool
        round: With one elliptic wall instead of four walls. (B,) bool
        skyline: Height of the skyline by angle in meters. (B, SKYLINE_STEPS)
    """

    half: Tensor
    height: Tensor
    open_air: Tensor
    round: Tensor
    skyline: Tensor

    def free_extent(self) -> Tensor:
        """Return the half extents of a rectangle with clearance to the walls. (B, 2)"""
        inner = torch.where(self.round[:, None], self.half / math.sqrt(2), self.half)
        return inner - torch.where(self.open_air, 3.0, 0.75)[:, None]


def sample_shells(seeds: Tensor, outdoor_prob: float) -> Environments:
    dice = SceneRNG(seeds, "shell")
    open_air = dice.bernoulli(outdoor_prob)
    indoors, outdoors = dice.log_uniform(1.9, 4.5, (2,)), dice.log_uniform(14.0, 38.0, (2,))
    half = torch.where(open_air[:, None], outdoors, indoors)
    rounded = dice.bernoulli(torch.where(open_air, 0.5, 0.12))
    half = torch.where((rounded & ~open_air)[:, None], half * 1.25, half)
    steps = dice.uniform(0, 1, (SKYLINE_STEPS,))
    hills = (steps + steps.roll(1, 1) + steps.roll(-1, 1)).div(3)
    jagged = dice.bernoulli(0.6)
    blocks = steps[:, ::4].repeat_interleave(4, 1)
    low, high = dice.uniform(0.3, 2.5), dice.uniform(0.5, 7.0)
    skyline = low[:, None] + high[:, None] * torch.where(jagged[:, None], blocks, hills)
    height = torch.where(open_air, 1e3, dice.uniform(2.3, 3.6))
    return Environments(half, height, open_air, rounded, torch.where(open_air[:, None], skyline, 1e4))


def exit_points(shells: Environments, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Intersect rays that start inside with the surroundings.

    Args:
        shells: One per job. (J,)
        origin: Ray origin of each job. (J, 3)
        direction: (J, 3, P)

    Returns:
        Distance in lengths of `direction`, inf for the sky (J, P), and face, undefined for the sky (J, P) int64.
    """
    x, y, z = (direction + 1e-20).unbind(1)  # never 0
    ox, oy, oz = (o[:, None] for o in origin.unbind(1))
    half_x, half_z = (h[:, None] for h in shells.half.unbind(1))
    to_x = (torch.copysign(half_x, x) - ox) / x
    to_z = (torch.copysign(half_z, z) - oz) / z
    a, c = (x / half_x) ** 2 + (z / half_z) ** 2, (ox / half_x) ** 2 + (oz / half_z) ** 2 - 1
    b = ox * x / half_x**2 + oz * z / half_z**2
    to_ellipse = (-b + (b * b - a * c).clamp(min=0).sqrt()) / a
    is_round = shells.round[:, None]
    to_wall = torch.where(is_round, to_ellipse, torch.minimum(to_x, to_z))
    wall = torch.where(to_x < to_z, 2 + (x > 0).long(), 4 + (z > 0).long())
    wall = torch.where(is_round, 2, wall)
    to_flat = (torch.where(y > 0, 0.0, -shells.height[:, None]) - oy) / y
    flat_first = to_flat < to_wall
    distance = torch.where(flat_first, to_flat, to_wall)
    face = torch.where(flat_first, torch.where(y > 0, FLOOR, CEILING), wall)

    angle = torch.atan2(oz + z * distance, ox + x * distance) / (2 * math.pi) + 0.5
    step = (angle * SKYLINE_STEPS).long().clamp(0, SKYLINE_STEPS - 1)
    above = -(oy + y * distance) > shells.skyline.gather(1, step)
    return distance.masked_fill(above, torch.inf), face


def inward_normals(shells: Environments, points: Tensor, face: Tensor) -> Tensor:
    """Return the unnormalized inward normals at points on faces.

    Args:
        shells: One per job. (J,)
        points: (J, 3, P)
        face: (J, P)

    Returns:
        (J, 3, P)
    """
    x = (face == 2).float() - (face == 3).float()
    z = (face == 4).float() - (face == 5).float()
    y = (face == CEILING).float() - (face == FLOOR).float()
    round_wall = shells.round[:, None] & (face >= 2)
    x = torch.where(round_wall, -points[:, 0] / shells.half[:, :1] ** 2, x)
    z = torch.where(round_wall, -points[:, 2] / shells.half[:, 1:] ** 2, z)
    return torch.stack([x, y, z], 1)
