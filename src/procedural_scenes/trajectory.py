"""Where the camera is and looks at any time: closed, smooth, hand-held ways as formulas of time.

A formula instead of a list of poses: a clip of eight frames and a walk of ten thousand cost nothing to keep, any
frame can be asked for alone, and every lap comes by the same places.
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
    """An ellipse-like lap, what is looked at on it, and the shaking hand. World axes as in `shell.py`.

    centre: of the lap. (B, 3)
    radius: along x and z. (B, 2)
    wave: how far the lap leaves the ellipse, three times around; x, y, z. (B, 3)
    start: angle where the lap starts. (B,)
    wave_phase, swing_phase, pause_phase, shake_phase: angles. (B, 3), (B, 3), (B,), (B, 6, 2)
    period: seconds of a lap; negative is the other way round. (B,)
    pause: 0 walks evenly, 1 comes to a stop twice a lap. (B,)
    follows: looks along the way instead of at the target. (B,) bool
    target: (B, 3)
    turn: how far the look is turned off. (B,)
    pitch: of the look along the way; positive looks down. (B,)
    swing: how far the look swings: yaw, pitch, roll. (B, 3)
    swing_rate: swings per lap; not whole, so laps see different things. (B, 3)
    shake: of the hand: metres, radians. (B, 2)
    """

    centre: Tensor
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
        """Camera centres without the hand's shake. (B, T) seconds → (B, T, 3)"""
        return self._positions(self._angle(times))

    def cam_from_world(self, times: Tensor, pace: float = 1.0) -> Tensor:
        """Poses. (B, T) seconds → (B, T, 3, 4)

        Args:
            pace: how much faster than by itself the way is gone; the hand shakes as ever.
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
        # Two tones per axis make a tremor that does not repeat in view.
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
        """How far around the lap. (B, T)"""
        even = 2 * math.pi * times / self.period[:, None]
        return self.start[:, None] + even - self.pause[:, None] / 2 * (2 * even + self.pause_phase[:, None]).sin()

    def _positions(self, angle: Tensor) -> Tensor:
        waves = self.wave[:, None] * (3 * angle[..., None] + self.wave_phase[:, None]).sin()
        flat = torch.stack([angle.cos() * self.radius[:, :1], angle * 0, angle.sin() * self.radius[:, 1:]], -1)
        return self.centre[:, None] + flat + waves


def sample_trajectories(seeds: Tensor, shells: Environments) -> Trajectories:
    """A way through every shell that keeps off its walls."""
    dice = SceneRNG(seeds, "trajectory")
    room = shells.free_extent()  # (B, 2)
    outdoors = shells.open_air
    kind = dice.categorical(torch.tensor([0.4, 0.25, 0.35], device=seeds.device))
    orbit, walk, dolly = (kind == 0), (kind == 1), (kind == 2)

    # Indoors the room says how far one can go, outdoors what one wants to see does.
    reach = torch.where(outdoors[:, None], torch.minimum(room * 0.6, dice.log_uniform(2.5, 8.0, (1,))), room)
    wide = dice.uniform(0.5, 0.85, (2,)) * reach
    thin = dice.uniform(0.04, 0.2)
    # A dolly runs along one side and looks at the other; along x or along z.
    along_x = dice.bernoulli(0.5)[:, None]
    lane = torch.where(
        along_x, torch.stack([wide[:, 0], thin * reach[:, 1]], -1), torch.stack([thin * reach[:, 0], wide[:, 1]], -1)
    )
    back = reach * (dice.uniform(0.35, 0.75) * torch.where(dice.bernoulli(0.5), 1.0, -1.0))[:, None]
    is_x = torch.tensor([True, False], device=seeds.device)
    off = torch.where(dolly[:, None] & (along_x ^ is_x), back, 0.0)
    radius = torch.where(dolly[:, None], lane, wide)
    zero = torch.zeros_like(thin)

    ground = dice.uniform(-0.4, 0.4, (2,)) * torch.where(outdoors[:, None], room - reach, 0.0)  # where outdoors
    drone = outdoors & dice.bernoulli(0.25)
    eye = torch.where(drone, dice.uniform(2.5, 6.0), dice.uniform(0.9, 1.8))
    eye = torch.minimum(eye, shells.height - 0.7)
    centre = torch.stack([ground[:, 0] + off[:, 0], -eye, ground[:, 1] + off[:, 1]], -1)

    aim = dice.uniform(-0.15, 0.15, (2,)) * radius
    ahead = -off * dice.uniform(0.5, 1.3, (1,))
    low = eye * dice.uniform(0.25, 1.0)
    low = torch.where(drone, 0.6 * low, low)
    target = torch.stack([ground[:, 0], -low, ground[:, 1]], -1)
    flat = torch.where(dolly[:, None], ahead, aim)
    target = target + torch.stack([flat[:, 0], zero, flat[:, 1]], -1)

    length = math.pi * (radius[:, 0] + radius[:, 1])
    speed = torch.where(drone, 3.0, 1.0) * dice.log_uniform(0.3, 1.2)
    period = (length / speed).clamp(min=10.0) * torch.where(dice.bernoulli(0.5), 1.0, -1.0)
    flat_wave = 0.05 * radius.min(-1).values
    wave = torch.stack([flat_wave, dice.uniform(0.02, 0.15) * eye, flat_wave], -1) * dice.uniform(0, 1, (3,))
    return Trajectories(
        centre=centre,
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


def rotation_from_angles(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """World-from-camera: yaw about gravity, positive pitch looks down, roll about the optical axis. (..., 3, 3)"""
    (sy, cy), (sp, cp), (sr, cr) = ((angle.sin(), angle.cos()) for angle in (yaw, pitch, roll))
    zero = torch.zeros_like(yaw)
    right, forward = torch.stack([cy, zero, -sy], -1), torch.stack([sy * cp, sp, cy * cp], -1)
    down = torch.stack([-sp * sy, cp, -sp * cy], -1)
    cr, sr = cr[..., None], sr[..., None]
    return torch.stack([cr * right + sr * down, cr * down - sr * right, forward], -1)
