"""What all layouts share: the clips to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.synthetic.clip import sample_fov
from streamvggt.data.synthetic.dice import Dice
from streamvggt.data.synthetic.scene import WorldStyle, sample_stage
from streamvggt.data.synthetic.trajectory import FRAMES_PER_SECOND
from streamvggt.data.synthetic.world import SyntheticWorld, film
from streamvggt.data.view import View

Clip = Sequence[View]
"""Views of one scene in the order of time."""


@dataclass(frozen=True)
class Written:
    """Where a clip went: the scene and its frames, as the data set's source names them."""

    scene: str
    frames: list[str]


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
    """Videos of the procedural world in which nothing moves.

    Args:
        stride: of the world's 30 frames per second.
        outdoors: under a sky.
        fov: over the larger side of the image, radians; None: another one for each clip.
    """
    world = SyntheticWorld("test", seed, WorldStyle(outdoor_share=float(outdoors), moving_share=0))
    times = torch.arange(num_frames)[None] * stride / FRAMES_PER_SECOND
    clips = []
    for number in range(num_clips):
        stage = sample_stage(world.scene_seeds(number, 1), world.style)
        own_fov = sample_fov(Dice(stage.scenes.seeds, "clip"), world.style)
        batch = film(stage, times, own_fov if fov is None else torch.full_like(own_fov, fov), (height, width))
        clips.append([batch.view(0, frame) for frame in range(num_frames)])
    return clips


def near_mask(view: View) -> Tensor:
    """255 for what is nearer than the median, 0 elsewhere. (H, W) int64"""
    return 255 * (view.valid & (view.depth <= view.depth.median())).long()


def neighbours_in_time(frames: Sequence) -> dict[int, list[tuple[int, float]]]:
    """For each frame all others, with how much they share: the less the farther in time."""
    numbers = range(len(frames))
    return {i: [(j, 1 / (1 + abs(i - j))) for j in numbers if j != i] for i in numbers}


def write_rgb_depth_cam(
    root: Path, scene: str, clip: Clip, *, name: str, suffix: str, kind: str | None = None
) -> Written:
    """A scene as several data sets have it: rgb/, depth/*.npy and cam/*.npz with intrinsics and pose.

    Args:
        name: of a frame by its number, e.g. "{:04d}".
        suffix, kind: of the pictures, see `write_image`.
    """
    frames = [name.format(number) for number in range(len(clip))]
    for folder in ("depth", "cam"):
        (root / scene / folder).mkdir(parents=True, exist_ok=True)
    for frame, view in zip(frames, clip, strict=True):
        write_image(root / scene / f"rgb/{frame}{suffix}", view, kind)
        np.save(root / scene / f"depth/{frame}.npy", depth_array(view))
        np.savez(
            root / scene / f"cam/{frame}.npz",
            intrinsics=view.intrinsics.float().numpy(),
            pose=world_from_cam(view).astype(np.float32),
        )
    return Written(scene, frames)
