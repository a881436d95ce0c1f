"""Videos of static procedural scenes for data set fixtures."""

from __future__ import annotations

import torch

from procedural_scenes.clip import sample_fov
from procedural_scenes.rng import SceneRNG
from procedural_scenes.scene import SceneConfig, sample_setup
from procedural_scenes.trajectory import FRAMES_PER_SECOND
from procedural_scenes.world import SyntheticScenes, render_frames
from streamvggt.data.view import View


def world_clips(
    num_clips: int,
    num_frames: int,
    height: int,
    width: int,
    seed: int = 0,
    stride: int = 8,
    outdoors: bool = False,
    fov: float | None = None,
) -> list[list[View]]:
    """Render videos of static procedural scenes.

    Args:
        num_clips: Number of videos.
        num_frames: Frames per video.
        height: Image height in pixels.
        width: Image width in pixels.
        seed: Seed of the scenes.
        stride: Frame stride at 30 frames per second.
        outdoors: Use outdoor scenes.
        fov: Field of view over the longer image side in radians. None draws one per clip.
    """
    world = SyntheticScenes("test", seed, SceneConfig(outdoor_prob=float(outdoors), moving_prob=0))
    times = torch.arange(num_frames)[None] * stride / FRAMES_PER_SECOND
    clips = []
    for number in range(num_clips):
        stage = sample_setup(world.scene_seeds(number, 1), world.style)
        own_fov = sample_fov(SceneRNG(stage.scenes.seeds, "clip"), world.style)
        batch = render_frames(stage, times, own_fov if fov is None else torch.full_like(own_fov, fov), (height, width))
        clips.append([batch.view(0, frame) for frame in range(num_frames)])
    return clips
