"""Place items in scenes: kind, size, position, motion, and removal of items in the way.

B scenes · M proposed items · I items. Lengths are in meters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from procedural_scenes.environment import Environments
from procedural_scenes.objects import catalogue
from procedural_scenes.rng import SceneRNG
from procedural_scenes.trajectory import Trajectories, rotation_from_angles
from procedural_scenes.vectors import dot, product

NUM_PROPOSALS = 72
PATH_SAMPLES = 96


@dataclass
class Items:
    """Items of B scenes. Fields as in `Scenes`, and:

    Attributes:
        kind: Index in the catalogue. (B, M)
        on_wall: Whether the item hangs on a wall. (B, M) bool
        in_air: Whether the item floats. (B, M) bool
        along_wall: Whether the item is at a wall. (B, M) bool
        reach: Largest distance of a moving item from `center`; 0 for static items. (B, M)
    """

    kind: Tensor
    half: Tensor
    on_wall: Tensor
    in_air: Tensor
    along_wall: Tensor | None = None
    center: Tensor | None = None
    rotation: Tensor | None = None
    reach: Tensor | None = None
    sway: Tensor | None = None
    spin: Tensor | None = None
    rate: Tensor | None = None
    present: Tensor | None = None

    def select(self, index: Tensor) -> Items:
        """Return the items at some positions of the list. (B, I)"""

        def taken(values: Tensor) -> Tensor:
            where = index.reshape(*index.shape, *(1,) * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
            return values.gather(1, where)

        return Items(**{field.name: taken(getattr(self, field.name)) for field in fields(self)})


def sample_items(seeds: Tensor, shells: Environments, way: Trajectories, moving_prob: float, max_items: int) -> Items:
    """Sample the items of scenes. Unused slots have `present` False. (B, max_items)"""
    dice = SceneRNG(seeds, "things")
    items = _propose(dice, shells)
    # The first items are removed last. They are in view, and include the moving items.
    is_early = torch.arange(NUM_PROPOSALS, device=seeds.device) < NUM_PROPOSALS // 4
    _sample_poses(dice, items, shells, way, is_early)
    _sample_motion(dice, items, shells, is_early, moving_prob)
    margin = torch.where(shells.open_air, 0.8, 0.4)
    clear = _clears_path(way, items.center, items.rotation, items.half, items.reach, margin)
    alone = clear & ~_overlaps_previous(items.center, items.half, items.reach, clear)
    wanted = torch.where(shells.open_air, dice.uniform(16, max_items + 1), dice.uniform(9, 24))
    items.present = alone & (alone.cumsum(1) <= wanted[:, None])
    return items.select(items.present.float().argsort(dim=1, descending=True, stable=True)[:, :max_items])


def _propose(dice: SceneRNG, shells: Environments) -> Items:
    """Sample kinds and sizes."""
    things = catalogue(shells.height.device)
    shape = (NUM_PROPOSALS,)
    kind = dice.categorical(things.weights[shells.open_air.long()], shape)  # (B, M)
    low, high = things.size[kind].unbind(2)
    half = low + (high - low) * dice.uniform(shape=(*shape, 3))
    half = torch.where(things.even[kind][..., None], half[..., [0, 1, 0]], half)
    half[..., 1] = torch.minimum(half[..., 1], 0.47 * shells.height[:, None])
    return Items(kind, half, things.on_wall[kind] & ~shells.round[:, None], things.in_air[kind])


def _sample_poses(dice: SceneRNG, items: Items, shells: Environments, way: Trajectories, is_early: Tensor) -> None:
    """Set `along_wall`, `center` and `rotation`."""
    half, on_wall, in_air = items.half, items.on_wall, items.in_air
    shape, outdoors = (NUM_PROPOSALS,), shells.open_air[:, None]
    wall = dice.integer(4, shape)
    along_wall = on_wall | (dice.bernoulli(0.35, shape) & ~outdoors & ~in_air & ~shells.round[:, None])
    flat = _sample_floor(dice, shells, way, is_early)
    gap = torch.where(on_wall, 0.0, dice.uniform(0.01, 0.1, shape)) + half[..., 2]
    by_wall = _at_wall(wall, dice.uniform(-1, 1, shape), gap, half, shells)
    flat = torch.where(along_wall[..., None], by_wall, flat)
    aloft = torch.where(on_wall, dice.uniform(1.1, 2.0, shape), dice.uniform(0.5, 2.2, shape))
    aloft = torch.minimum(aloft, shells.height[:, None] - half[..., 1] - 0.05)
    level = torch.where(on_wall | in_air, -aloft, -half[..., 1])
    tumble = torch.where(in_air, dice.uniform(-1.2, 1.2, shape), 0.0)
    facing = wall * (math.pi / 2)  # walls at -z, -x, +z, +x; items at a wall face away from it
    yaw = torch.where(along_wall, facing, dice.uniform(0, 2 * math.pi, shape))
    items.along_wall = along_wall
    items.center = torch.stack([flat[..., 0], level, flat[..., 1]], -1)
    items.rotation = rotation_from_angles(yaw, tumble, tumble.roll(1, 1) * in_air)


def _sample_floor(dice: SceneRNG, shells: Environments, way: Trajectories, is_early: Tensor) -> Tensor:
    """Sample positions x, z around the camera target, around the lap, or anywhere. (B, M, 2)"""
    shape, outdoors = (NUM_PROPOSALS,), shells.open_air[:, None]
    size = shells.half[:, None].expand(-1, *shape, -1)
    flat = dice.uniform(-1, 1, (*shape, 2)) * (size - 0.3)
    spread = torch.where(shells.open_air, 3.0, 0.6)[:, None, None]
    about_target = way.target[:, None, [0, 2]] + dice.normal((*shape, 2)) * spread
    angle, ring = dice.uniform(0, 2 * math.pi, shape), dice.uniform(0.2, 3.0, shape)[..., None]
    about_lap = way.center[:, None, [0, 2]] + torch.stack([angle.cos(), angle.sin()], -1) * ring * (
        way.radius[:, None] + spread / 2
    )
    place = (dice.uniform(shape=shape) * torch.where(is_early, 0.5, 1.0))[..., None]
    flat = torch.where(place < 0.3, about_target, torch.where((place < 0.75) & outdoors[..., None], about_lap, flat))
    return torch.minimum(torch.maximum(flat, 0.2 - size), size - 0.2)


def _at_wall(wall: Tensor, share: Tensor, gap: Tensor, half: Tensor, shells: Environments) -> Tensor:
    """Return positions x, z at walls.

    Args:
        wall: Index of the wall: -z, -x, +z, +x. (B, M)
        share: Position along the wall, from -1 to 1. (B, M)
        gap: Distance of the center from the wall. (B, M)
        half: Half sizes. (B, M, 3)
        shells: Surroundings.
    """
    size = shells.half[:, None].expand(-1, NUM_PROPOSALS, -1)
    sign = torch.where(wall < 2, -1.0, 1.0)
    across = sign[..., None] * (size - gap[..., None])  # distance from the center towards the wall
    return torch.where(
        (wall % 2 == 0)[..., None],
        torch.stack([share * (size[..., 0] - half[..., 0]), across[..., 1]], -1),
        torch.stack([across[..., 0], share * (size[..., 1] - half[..., 0])], -1),
    )


def _sample_motion(dice: SceneRNG, items: Items, shells: Environments, is_early: Tensor, moving_prob: float) -> None:
    """Set swings, ellipses and spins of items that are not at a wall: `reach`, `sway`, `spin` and `rate`."""
    shape, outdoors = (NUM_PROPOSALS,), shells.open_air[:, None]
    moving_scene = dice.bernoulli(moving_prob)[:, None]
    is_free = ~items.along_wall & (items.half.amax(-1) < 2.4)
    moves = moving_scene & dice.bernoulli(torch.where(is_early, 0.5, 0.1), shape) & is_free
    reach = torch.where(outdoors, 1.8, 0.6) * dice.uniform(0.3, 1.0, shape)
    heading = dice.uniform(0, 2 * math.pi, shape)
    first = torch.stack([heading.cos(), torch.where(items.in_air, 0.3, 0.0) * heading.sin(), heading.sin()], -1)
    second = torch.stack([-first[..., 2], torch.zeros_like(heading), first[..., 0]], -1)
    second = second * torch.where(dice.bernoulli(0.5, shape), 0.0, 1.0)[..., None]  # a swing or an ellipse
    items.sway = torch.stack([first, second], 2) * (reach * moves)[..., None, None]
    items.spin = torch.where(moves & dice.bernoulli(0.4, shape), dice.uniform(-0.2, 0.2, shape), 0.0)
    items.rate = dice.log_uniform(0.05, 0.25, shape)
    items.reach = torch.where(moves, reach, 0.0)


def _clears_path(
    way: Trajectories, center: Tensor, rotation: Tensor, half: Tensor, swayed: Tensor, margin: Tensor
) -> Tensor:
    """Whether objects keep their motion range and a margin away from the whole lap. (B, M) bool"""
    laps = torch.linspace(0, 1, PATH_SAMPLES, device=center.device)
    places = way.positions(way.period.abs()[:, None] * laps)  # (B, T, 3)
    away = places[:, :, None] - center[:, None]  # (B, T, M, 3)
    local = product(rotation.transpose(-1, -2)[:, None], away[..., None])[..., 0]
    outside = (local.abs() - half[:, None]).clamp(min=0)
    distance = dot(outside, outside).amin(1).sqrt()
    return distance > swayed + margin[:, None]


def _overlaps_previous(center: Tensor, half: Tensor, swayed: Tensor, counts: Tensor) -> Tensor:
    """Whether an object overlaps an earlier valid object of the list. (B, M) bool

    An earlier object that is itself removed also counts. This removes slightly too many objects but avoids a loop.
    """
    radius = 0.75 * torch.hypot(half[..., 0], half[..., 2]) + swayed
    apart = center[:, :, None] - center[:, None]  # (B, M, M, 3)
    above = apart[..., 1].abs() > half[:, :, None, 1] + half[:, None, :, 1]
    meets = (
        (torch.hypot(apart[..., 0], apart[..., 2]) < radius[:, :, None] + radius[:, None]) & ~above & counts[:, None]
    )
    return meets.tril(-1).any(2)
