"""Camera trajectories: closed, smooth, hand-held camera paths as functions of time.

Functions of time need no storage for long sequences. Each frame can be evaluated separately, and every lap revisits the
same positions.
B scenes · T times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from procedural_scenes.environment import Environments
from procedural_scenes.rng import SceneRNG
from streamvggt.geometry.camera import invert_pose

FRAMES_PER_SECOND = 30.0


@dataclass(frozen=True)
class Trajectories:
    """An approximately elliptic lap, the viewing direction, and hand shake. World axes as in `environment.py`.

    Attributes:
        center: Center of the lap in meters. (B, 3)
        radius: Radius along x and z in meters. (B, 2)
        wave: Amplitude of a deviation from the ellipse with three periods per lap; x, y, z. (B, 3)
        start: Start angle of the lap. (B,)
        wave_phase: (B, 3)
        swing_phase: (B, 3)
        pause_phase: (B,)
        shake_phase: (B, 6, 2)
        period: Seconds per lap; negative for the opposite direction. (B,)
        pause: 0 for constant speed, 1 for two stops per lap. (B,)
        looks_ahead: Whether the camera faces along the path instead of at the target. (B,) bool
        target: World point. (B, 3)
        yaw_offset: Offset of the viewing direction. (B,)
        pitch: Pitch of a camera that faces along the path; positive faces down. (B,)
        yaw_swing: Amplitudes of yaw, pitch and roll. (B, 3)
        swing_rate: Swings per lap. Non-integer, so that the views of laps differ. (B, 3)
        hand_shake: Amplitudes in meters and radians. (B, 2)
    """

    center: Tensor
    radius: Tensor
    wave: Tensor
    start: Tensor
    wave_phase: Tensor
    swing_phase: Tensor
    pause_phase: Tensor
    shake_phase: Tensor
    period: Tensor
    pause: Tensor
    looks_ahead: Tensor
    target: Tensor
    yaw_offset: Tensor
    pitch: Tensor
    yaw_swing: Tensor
    swing_rate: Tensor
    hand_shake: Tensor

    def positions(self, times: Tensor) -> Tensor:
        """Return camera centers without hand shake. (B, T) seconds → (B, T, 3)"""
        return self._positions(self._angle(times))

    def cam_from_world(self, times: Tensor, pace: float = 1.0) -> Tensor:
        """Return camera-from-world poses. (B, T) seconds → (B, T, 3, 4)

        Args:
            times: In seconds. (B, T)
            pace: Speed factor of the path. Hand shake is unchanged.
        """
        angle = self._angle(times * pace)
        position = self._positions(angle)
        to_target = self.target[:, None] - position
        way_x, way_z = -self.radius[:, :1] * angle.sin(), self.radius[:, 1:] * angle.cos()
        way_x, way_z = way_x * self.period.sign()[:, None], way_z * self.period.sign()[:, None]
        follows = self.looks_ahead[:, None]
        yaw = torch.where(follows, torch.atan2(way_x, way_z), torch.atan2(to_target[..., 0], to_target[..., 2]))
        away = torch.hypot(to_target[..., 0], to_target[..., 2])
        pitch = torch.where(follows, self.pitch[:, None], torch.atan2(to_target[..., 1], away))

        laps = times * pace / self.period.abs()[:, None]
        swings = (2 * math.pi * self.swing_rate[:, None] * laps[..., None] + self.swing_phase[:, None]).sin()
        swing = self.yaw_swing[:, None] * swings  # (B, T, 3)
        # Two frequencies per axis, so that the tremor does not repeat visibly.
        tones = torch.tensor(
            [[0.7, 1.9], [0.9, 2.3], [0.8, 1.7], [1.1, 2.9], [1.3, 2.1], [0.6, 2.6]], device=times.device
        )
        tremor = (2 * math.pi * times[..., None, None] * tones + self.shake_phase[:, None]).sin()
        tremor = tremor.sum(-1) / 2  # (B, T, 6)
        position = position + self.hand_shake[:, None, :1] * tremor[..., :3]
        yaw, pitch, roll = (
            torch.stack([yaw + self.yaw_offset[:, None], pitch, torch.zeros_like(yaw)], -1)
            + swing
            + self.hand_shake[:, None, 1:] * tremor[..., 3:]
        ).unbind(-1)
        rotation = rotation_from_angles(yaw, pitch.clamp(-1.2, 1.2), roll)
        return invert_pose(torch.cat([rotation, position[..., None]], -1))

    def _angle(self, times: Tensor) -> Tensor:
        """Return the angle along the lap. (B, T)"""
        even = 2 * math.pi * times / self.period[:, None]
        return self.start[:, None] + even - self.pause[:, None] / 2 * (2 * even + self.pause_phase[:, None]).sin()

    def _positions(self, angle: Tensor) -> Tensor:
        waves = self.wave[:, None] * (3 * angle[..., None] + self.wave_phase[:, None]).sin()
        flat = torch.stack([angle.cos() * self.radius[:, :1], angle * 0, angle.sin() * self.radius[:, 1:]], -1)
        return self.center[:, None] + flat + waves


def sample_trajectories(seeds: Tensor, shells: Environments) -> Trajectories:
    """Sample a trajectory per scene with clearance to the walls."""
    dice = SceneRNG(seeds, "trajectory")
    room = shells.free_extent()  # (B, 2)
    outdoors = shells.open_air
    kind = dice.categorical(torch.tensor([0.4, 0.25, 0.35], device=seeds.device))
    orbit, walk, dolly = (kind == 0), (kind == 1), (kind == 2)

    # The room limits the path indoors, the target distance outdoors.
    reach = torch.where(outdoors[:, None], torch.minimum(room * 0.6, dice.log_uniform(2.5, 8.0, (1,))), room)
    wide = dice.uniform(0.5, 0.85, (2,)) * reach
    thin = dice.uniform(0.04, 0.2)
    # A dolly moves along one side, along x or z, and faces the other side.
    along_x = dice.bernoulli(0.5)[:, None]
    lane = torch.where(
        along_x, torch.stack([wide[:, 0], thin * reach[:, 1]], -1), torch.stack([thin * reach[:, 0], wide[:, 1]], -1)
    )
    back = reach * (dice.uniform(0.35, 0.75) * torch.where(dice.bernoulli(0.5), 1.0, -1.0))[:, None]
    is_x = torch.tensor([True, False], device=seeds.device)
    off = torch.where(dolly[:, None] & (along_x ^ is_x), back, 0.0)
    radius = torch.where(dolly[:, None], lane, wide)

    ground = dice.uniform(-0.4, 0.4, (2,)) * torch.where(outdoors[:, None], room - reach, 0.0)  # where outdoors
    drone = outdoors & dice.bernoulli(0.25)
    eye = torch.where(drone, dice.uniform(2.5, 6.0), dice.uniform(0.9, 1.8))
    eye = torch.minimum(eye, shells.height - 0.7)
    center = raised(ground + off, eye)

    aim = dice.uniform(-0.15, 0.15, (2,)) * radius
    ahead = -off * dice.uniform(0.5, 1.3, (1,))
    low = eye * dice.uniform(0.25, 1.0)
    low = torch.where(drone, 0.6 * low, low)
    target = raised(ground + torch.where(dolly[:, None], ahead, aim), low)

    length = math.pi * (radius[:, 0] + radius[:, 1])
    speed = torch.where(drone, 3.0, 1.0) * dice.log_uniform(0.3, 1.2)
    period = (length / speed).clamp(min=10.0) * torch.where(dice.bernoulli(0.5), 1.0, -1.0)
    flat_wave = 0.05 * radius.min(-1).values
    wave = torch.stack([flat_wave, dice.uniform(0.02, 0.15) * eye, flat_wave], -1) * dice.uniform(0, 1, (3,))
    return Trajectories(
        center=center,
        radius=radius,
        wave=wave,
        start=dice.uniform(0, 2 * math.pi),
        wave_phase=dice.uniform(0, 2 * math.pi, (3,)),
        swing_phase=dice.uniform(0, 2 * math.pi, (3,)),
        pause_phase=dice.uniform(0, 2 * math.pi),
        shake_phase=dice.uniform(0, 2 * math.pi, (6, 2)),
        period=period,
        pause=torch.where(dice.bernoulli(0.4), dice.uniform(0.5, 0.98), 0.0),
        looks_ahead=walk,
        target=target,
        yaw_offset=torch.where(walk, dice.uniform(-0.9, 0.9), dice.uniform(-0.15, 0.15)),
        pitch=dice.uniform(-0.1, 0.2) + torch.where(drone, 0.25, 0.0),
        yaw_swing=dice.uniform(0, 1, (3,))
        * torch.where(orbit | dolly, 0.2, 0.35)[:, None]
        * torch.tensor([1.0, 0.4, 0.3], device=seeds.device),
        swing_rate=dice.uniform(1.3, 4.7, (3,)),
        hand_shake=dice.uniform(0, 1, (2,)) * torch.tensor([0.01, 0.012], device=seeds.device),
    )


def raised(ground: Tensor, height: Tensor) -> Tensor:
    """Return the world points at a height in meters above points (x, z) of the ground. (B, 2), (B,) → (B, 3)"""
    return torch.stack([ground[:, 0], -height, ground[:, 1]], -1)


def rotation_from_angles(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Return world-from-camera: yaw about gravity, pitch (positive is down), roll about the z axis. (..., 3, 3)"""
    (sy, cy), (sp, cp), (sr, cr) = ((angle.sin(), angle.cos()) for angle in (yaw, pitch, roll))
    zero = torch.zeros_like(yaw)
    right, forward = torch.stack([cy, zero, -sy], -1), torch.stack([sy * cp, sp, cy * cp], -1)
    down = torch.stack([-sp * sy, cp, -sp * cy], -1)
    cr, sr = cr[..., None], sr[..., None]
    return torch.stack([cr * right + sr * down, cr * down - sr * right, forward], -1)
