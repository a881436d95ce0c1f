"""Select the frame times of training clips on a trajectory.

Consecutive frames should overlap partially. The overlap is estimated from the rotation in fields of view, and from the
translation in widths of the visible region. Frames are placed at uneven steps along the sum of both.
B scenes · S frames · T candidate times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from procedural_scenes.environment import exit_points
from procedural_scenes.raycast import RayBatch, intersect
from procedural_scenes.render import select
from procedural_scenes.rng import SceneRNG
from procedural_scenes.scene import SceneConfig, SceneSetup
from procedural_scenes.trajectory import FRAMES_PER_SECOND
from streamvggt.geometry.camera import invert_pose

NUM_CANDIDATES = 128
"""Number of candidate times per lap."""
PROBE_OFFSETS = (-0.7, 0.0, 0.7)
"""Image positions of the depth probes, in half fields of view."""
REVERSED_SHARE = 0.3


def sample_clip_times(stage: SceneSetup, style: SceneConfig, dice: SceneRNG, fov: Tensor, num_frames: int) -> Tensor:
    """Sample the frame times of one clip per scene.

    Args:
        stage: Scenes and trajectories.
        style: Style of the scenes.
        dice: Random numbers.
        fov: Field of view over the longer image side in radians. (B,)
        num_frames: Frames per clip.

    Returns:
        Times in seconds, ascending or descending. (B, S)
    """
    lap = stage.trajectories.period.abs()[:, None]
    start = dice.uniform(shape=(1,))
    dense = lap * (start + torch.linspace(0, 1, NUM_CANDIDATES + 1, device=fov.device))  # (B, T)
    new = novelty(stage, dense, fov)  # (B, T - 1)
    passed = torch.cat([torch.zeros_like(new[:, :1]), new.cumsum(1)], 1)

    steps = dice.log_uniform(*style.view_change, (1,)) * dice.uniform(0.6, 1.4, (num_frames,))
    wanted = steps.cumsum(1) - steps[:, :1]
    whole = passed[:, -1:]
    laps, rest = (wanted / whole).floor(), wanted % whole  # a long clip covers several laps
    after = torch.searchsorted(passed, rest.contiguous(), right=True).clamp(1, NUM_CANDIDATES)
    low, high = passed.gather(1, after - 1), passed.gather(1, after)
    within = (after - 1 + (rest - low) / (high - low).clamp(min=1e-9)) / NUM_CANDIDATES
    spread = lap * (start + laps + within)

    seconds = dice.log_uniform(1.0, 12.0, (1,)) / FRAMES_PER_SECOND
    video = lap * start + seconds * torch.arange(num_frames, device=fov.device)
    times = torch.where(dice.bernoulli(style.video_prob)[:, None], video, spread)
    return torch.where(dice.bernoulli(REVERSED_SHARE)[:, None], times.flip(1), times)


def novelty(stage: SceneSetup, times: Tensor, fov: Tensor) -> Tensor:
    """Estimate the ratio of each view that the previous view does not cover. (B, T) seconds → (B, T - 1)"""
    poses = invert_pose(stage.trajectories.cam_from_world(times))
    distance = probe_depth(stage, times, fov)
    moved = (poses[:, 1:, :, 3] - poses[:, :-1, :, 3]).norm(dim=-1)
    trace = (poses[:, 1:, :, :3] * poses[:, :-1, :, :3]).sum((-1, -2))
    turned = torch.arccos(((trace - 1) / 2).clamp(-1, 1))
    width = 2 * torch.tan(fov / 2)[:, None] * (distance[:, 1:] + distance[:, :-1]) / 2
    return moved / width + turned / fov[:, None]


def probe_depth(stage: SceneSetup, times: Tensor, fov: Tensor) -> Tensor:
    """Return the median depth of a few rays per time. (B, T) seconds → (B, T)"""
    scene = torch.arange(len(fov), device=fov.device).repeat_interleave(times.shape[1])
    probes = torch.tensor(PROBE_OFFSETS, device=fov.device)
    y, x = torch.meshgrid(probes, probes, indexing="ij")
    reach = torch.tan(fov / 2)[scene, None]
    x, y = x.flatten() * reach, 0.75 * y.flatten() * reach  # (F, rays)
    poses = invert_pose(stage.trajectories.cam_from_world(times)).flatten(0, 1)
    R = poses[:, :, :3, None]
    direction = (R[:, :, 0] * x[:, None] + R[:, :, 1] * y[:, None] + R[:, :, 2]).contiguous()
    rays = RayBatch(torch.arange(len(scene), device=fov.device), poses[:, :, 3], direction)
    around, _ = exit_points(select(stage.scenes.shells, scene), rays.origin, direction)
    hits = intersect(stage.scenes.primitives(times).flatten(), rays)
    depth = torch.minimum(around, hits.distance).clamp(max=60)  # the sky has the maximum depth
    return depth.median(-1).values.view(times.shape)


def sample_fov(dice: SceneRNG, style: SceneConfig) -> Tensor:
    """Sample the field of view over the longer image side in radians. (B,)"""
    return dice.uniform(*map(math.radians, style.fov))
