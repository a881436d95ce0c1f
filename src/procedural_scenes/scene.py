"""Content of a scene: objects, their materials, their motions, and the light.

B scenes · I objects ("items") · N primitives: all boxes of the items, then all balls and cylinders · T times.
World axes as in `environment.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from procedural_scenes.environment import NUM_FACES, Environments, sample_shells
from procedural_scenes.material import Materials, rgb_from_hsv, sample_materials
from procedural_scenes.objects import MAX_BOXES, MAX_ROUND, catalogue
from procedural_scenes.placement import sample_items
from procedural_scenes.rng import SceneRNG
from procedural_scenes.trajectory import Trajectories, rotation_from_angles, sample_trajectories
from procedural_scenes.vectors import length, product

MAX_ITEMS = 26
SUN_DISTANCE = 200.0


@dataclass(frozen=True)
class SceneConfig:
    """Distribution of scenes.

    Attributes:
        outdoor_prob: Probability of outdoor scenes.
        moving_prob: Probability of scenes with moving objects.
        fov: Minimum and maximum field of view over the longer image side in degrees.
        view_change: Minimum and maximum mean ratio of new image content per frame of a training clip.
        video_prob: Probability of training clips with consecutive video frames at even times, including pauses.
    """

    outdoor_prob: float = 0.4
    moving_prob: float = 0.3
    fov: tuple[float, float] = (35.0, 90.0)
    view_change: tuple[float, float] = (0.08, 0.45)
    video_prob: float = 0.15


ROOMS = SceneConfig(outdoor_prob=0.0, moving_prob=0.0, fov=(55.0, 75.0), view_change=(0.2, 0.5), video_prob=0.0)
"""Static rooms, phone lenses and wide baselines: a domain that a small model learns within hours."""
VIDEO = replace(ROOMS, view_change=(0.04, 0.15), video_prob=0.3)
"""The same rooms with small steps of 2 to 8 degrees, as in a hand-held video."""
OUTDOOR = SceneConfig(outdoor_prob=1.0, moving_prob=1.0, fov=(50.0, 75.0))
"""Open air with moving objects."""
FAR_APART = replace(ROOMS, view_change=(0.45, 0.6))
"""The same rooms as single photos: about half of each image is new."""
STYLES = {"all": SceneConfig(), "rooms": ROOMS, "video": VIDEO, "outdoor": OUTDOOR, "far-apart": FAR_APART}


@dataclass(frozen=True)
class Lights:
    """One lamp or sun per scene, and ambient light.

    Attributes:
        position: Position of the lamp in meters; the sun is a distant lamp. (B, 3)
        color: Linear RGB. (B, 3)
        reach: Distance in meters at which the lamp has half its brightness; inf for the sun. (B,)
        sky_ambient: Ambient light on surfaces that face up. (B, 3)
        ground_ambient: Ambient light on surfaces that face down. (B, 3)
        haze: Ratio of light lost per meter of air. (B,)
        sky: Color of the horizon. (B, 3)
    """

    position: Tensor
    color: Tensor
    reach: Tensor
    sky_ambient: Tensor
    ground_ambient: Tensor
    haze: Tensor
    sky: Tensor


@dataclass(frozen=True)
class Sensors:
    """Camera response.

    Attributes:
        exposure: (B,)
        balance: Gain per color channel. (B, 3)
        noise: Standard deviation in an image in [0, 1]. (B,)
        flicker: Standard deviation of the exposure per frame in stops. (B,)
    """

    exposure: Tensor
    balance: Tensor
    noise: Tensor
    flicker: Tensor


@dataclass(frozen=True)
class Scenes:
    """B scenes. Lengths are in meters.

    Attributes:
        seeds: (B,) int64
        present: Whether an item slot is used. (B, I) bool
        center: Centers of items at rest. (B, I, 3)
        rotation: World-from-item rotation at rest. (B, I, 3, 3)
        half: Half sizes of items in their own axes. (B, I, 3)
        sway: Cosine and sine amplitude of the motion about `center`; 0 for static items. (B, I, 2, 3)
        spin: Rotations about gravity per second. (B, I)
        rate: Motion periods per second. (B, I)
        part_center: Centers of primitives in item axes. (B, N, 3)
        part_half: Half sizes of primitives; 0 for unused slots. (B, N, 3)
        is_ball: Whether a round primitive is a ball, else a cylinder. (B, N - boxes) bool
        materials: Materials of the faces of the surroundings, then of primitives. (B, 6 + N)
    """

    seeds: Tensor
    shells: Environments
    lights: Lights
    sensors: Sensors
    present: Tensor
    center: Tensor
    rotation: Tensor
    half: Tensor
    sway: Tensor
    spin: Tensor
    rate: Tensor
    part_center: Tensor
    part_half: Tensor
    is_ball: Tensor
    materials: Materials

    @property
    def num_items(self) -> int:
        return self.present.shape[1]

    @property
    def num_boxes(self) -> int:
        return self.part_half.shape[1] - self.is_ball.shape[1]

    @property
    def item_of_part(self) -> Tensor:
        """Item index of each primitive. (N,) int64"""
        items = torch.arange(self.num_items, device=self.present.device)
        boxes = self.num_boxes // self.num_items
        return torch.cat([items.repeat_interleave(boxes), items.repeat_interleave(MAX_ROUND)])

    @property
    def moves(self) -> Tensor:
        """Whether items move. (B, I) bool"""
        return self.present & ((self.sway != 0).flatten(2).any(-1) | (self.spin != 0))

    def item_poses(self, times: Tensor) -> Tensor:
        """Return world-from-item poses. (B, T) seconds → (B, T, I, 3, 4)"""
        angle = 2 * math.pi * self.rate[:, None] * times[..., None]  # (B, T, I)
        away = self.sway[:, None, :, 0] * angle.cos()[..., None] + self.sway[:, None, :, 1] * angle.sin()[..., None]
        turn = 2 * math.pi * self.spin[:, None] * times[..., None]
        zero = torch.zeros_like(turn)
        rotation = product(rotation_from_angles(turn, zero, zero), self.rotation[:, None])
        return torch.cat([rotation, (self.center[:, None] + away)[..., None]], -1)

    def primitives(self, times: Tensor) -> Primitives:
        """Return all primitives at some times. (B, T) seconds"""
        poses = self.item_poses(times)[:, :, self.item_of_part]  # (B, T, N, 3, 4)
        turned = poses[..., :3].transpose(-1, -2)  # item from world
        part_center = self.part_center[:, None, ..., None]
        shift = -product(turned, poses[..., 3:]) - part_center
        return Primitives(
            torch.cat([turned, shift], -1) / self.part_half.clamp(min=1e-6)[:, None, ..., None],
            (product(poses[..., :3], part_center) + poses[..., 3:])[..., 0],
            length(self.part_half)[:, None].expand(-1, times.shape[1], -1),
            self.is_ball[:, None].expand(-1, times.shape[1], -1),
        )


@dataclass(frozen=True)
class Primitives:
    """Boxes, then balls and cylinders, at some times.

    Attributes:
        local_from_world: Affine map to the unit shape: cube [-1, 1]³, unit ball, or cylinder x² + z² ≤ 1, |y| ≤ 1.
            (..., N, 3, 4)
        center: (..., N, 3)
        radius: Radius of the bounding sphere; 0 for unused slots. (..., N)
        is_ball: (..., N - boxes) bool
    """

    local_from_world: Tensor
    center: Tensor
    radius: Tensor
    is_ball: Tensor

    @property
    def num_boxes(self) -> int:
        return self.radius.shape[-1] - self.is_ball.shape[-1]

    def flatten(self) -> Primitives:
        """Merge the first two dimensions."""
        return Primitives(*[getattr(self, field.name).flatten(0, 1) for field in fields(self)])


@dataclass(frozen=True)
class SceneSetup:
    """Scenes and their camera trajectories."""

    scenes: Scenes
    trajectories: Trajectories


def sample_setup(seeds: Tensor, style: SceneConfig) -> SceneSetup:
    """Sample the scenes of seeds, and a collision-free camera trajectory through each.

    The trajectory is sampled first. Objects that block any part of it are removed.
    """
    shells = sample_shells(seeds, style.outdoor_prob)
    trajectories = sample_trajectories(seeds, shells)
    return SceneSetup(_place_objects(seeds, shells, trajectories, style), trajectories)


def _place_objects(seeds: Tensor, shells: Environments, way: Trajectories, style: SceneConfig) -> Scenes:
    """Sample the items of the scenes. Items that block the lap or overlap an earlier item are removed."""
    things = catalogue(seeds.device)
    items = sample_items(seeds, shells, way, style.moving_prob, MAX_ITEMS)

    def of_parts(boxes: Tensor, rounds: Tensor) -> Tensor:
        return torch.cat([boxes[items.kind].flatten(1, 2), rounds[items.kind].flatten(1, 2)], 1)

    parts = of_parts(things.boxes, things.rounds)  # (B, N, 6)
    owner = torch.arange(MAX_ITEMS, device=seeds.device)
    owner = torch.cat([owner.repeat_interleave(MAX_BOXES), owner.repeat_interleave(MAX_ROUND)])
    accents = of_parts(things.box_accent, things.round_accent)
    return Scenes(
        seeds=seeds,
        shells=shells,
        lights=_sample_lights(seeds, shells),
        sensors=_sample_sensors(seeds),
        present=items.present,
        center=items.center,
        rotation=items.rotation,
        half=items.half,
        sway=items.sway,
        spin=items.spin,
        rate=items.rate,
        part_center=parts[..., :3] * items.half[:, owner],
        part_half=parts[..., 3:] * items.half[:, owner] * items.present[:, owner, None],
        is_ball=things.is_ball[items.kind].flatten(1, 2),
        materials=_sample_surfaces(seeds, shells, accents, owner, items.on_wall),
    )


def _sample_surfaces(seeds: Tensor, shells: Environments, accents: Tensor, owner: Tensor, framed: Tensor) -> Materials:
    """Sample materials of the faces of the surroundings and of the objects' parts, two per object."""
    dice = SceneRNG(seeds, "materials")
    indoors = sample_materials(dice, (NUM_FACES,), (1.0, 4.0))
    outdoors = sample_materials(dice, (NUM_FACES,), (2.5, 12.0))
    faces = outdoors.where(shells.open_air[:, None].expand(-1, NUM_FACES), indoors).packed()
    same_walls = dice.bernoulli(0.6)[:, None, None] | shells.open_air[:, None, None]
    walls = torch.where(same_walls, faces[:, 2:3], faces[:, 2:])
    faces = torch.cat([faces[:, :2], walls], 1)

    main = sample_materials(dice, (MAX_ITEMS,), (0.3, 2.0), posters=framed).packed()
    second = sample_materials(dice, (MAX_ITEMS,), (0.2, 1.5)).packed()
    things = torch.where(accents[..., None], second[:, owner], main[:, owner])
    return Materials.unpacked(torch.cat([faces, things], 1))


def _sample_lights(seeds: Tensor, shells: Environments) -> Lights:
    dice = SceneRNG(seeds, "lights")
    sun_turn, sun_height = dice.uniform(0, 2 * math.pi), dice.uniform(0.35, 1.3)
    flat = torch.stack([sun_turn.cos(), sun_turn.sin()], -1)
    sun = torch.stack([flat[:, 0] * sun_height.cos(), -sun_height.sin(), flat[:, 1] * sun_height.cos()], -1)
    lamp_flat = dice.uniform(-0.7, 0.7, (2,)) * shells.half
    lamp = torch.stack([lamp_flat[:, 0], -shells.height * dice.uniform(0.75, 0.97), lamp_flat[:, 1]], -1)
    out = shells.open_air[:, None]
    warm = torch.stack([torch.ones_like(sun_turn), dice.uniform(0.8, 1.0), dice.uniform(0.6, 1.05)], -1)
    overcast = torch.where(shells.open_air & dice.bernoulli(0.25), 0.25, 1.0)
    strength = torch.where(shells.open_air, dice.uniform(1.1, 1.9) * overcast, dice.uniform(1.1, 2.2))
    ambient = torch.where(shells.open_air, dice.uniform(0.4, 0.65) / overcast.sqrt(), dice.uniform(0.3, 0.6))
    tint = rgb_from_hsv(dice.uniform(0.52, 0.65), dice.uniform(0, 0.35), torch.ones_like(ambient))
    return Lights(
        position=torch.where(out, sun * SUN_DISTANCE, lamp),
        color=warm * strength[:, None],
        reach=torch.where(shells.open_air, torch.inf, dice.uniform(2.0, 6.0)),
        sky_ambient=torch.where(out, tint, warm) * ambient[:, None],
        ground_ambient=warm * (ambient * dice.uniform(0.4, 0.7))[:, None],
        haze=torch.where(shells.open_air, dice.uniform(0.0, 0.012), 0.0),
        sky=rgb_from_hsv(dice.uniform(0.5, 0.65), dice.uniform(0.05, 0.6), dice.uniform(0.55, 1.0)),
    )


def _sample_sensors(seeds: Tensor) -> Sensors:
    dice = SceneRNG(seeds, "sensor")
    return Sensors(
        exposure=dice.log_uniform(0.75, 1.35),
        balance=dice.log_uniform(0.93, 1.07, (3,)),
        noise=dice.uniform(0, 0.025),
        flicker=dice.uniform(0, 0.12),
    )
