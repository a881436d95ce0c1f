"""Procedural scenes as an endless sequence of batches, and as sequences of any length.

B sequences · S frames · H×W pixels · K tracked points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from procedural_scenes.clip import sample_clip_times, sample_fov
from procedural_scenes.render import render
from procedural_scenes.rng import SceneRNG
from procedural_scenes.scene import SceneConfig, SceneSetup, sample_setup
from procedural_scenes.tracks import sample_tracks
from procedural_scenes.trajectory import FRAMES_PER_SECOND
from streamvggt.data.view import Batch
from streamvggt.geometry.camera import Cameras

SPLITS = ("train", "val", "test")
SCENES_PER_BATCH, BATCHES, SEEDS = 1 << 16, 1 << 24, 1 << 20
"""A scene's seed encodes split, global seed, batch and position in the batch, so seeds are unique."""


@dataclass(frozen=True)
class SyntheticScenes:
    """Endless scenes. Each scene is a function of its index.

        world = SyntheticScenes("train")
        batch = world.batch(0, num_sequences=16, num_frames=8, height=112, width=112)

    Attributes:
        split: "train", "val" or "test". The splits share no scene.
        seed: Seed of all scenes.
        style: Distribution of scenes.
    """

    split: str = "train"
    seed: int = 0
    style: SceneConfig = field(default_factory=SceneConfig)

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}; it must be one of {', '.join(SPLITS)}")
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed is {self.seed}; it must be in 0 … {SEEDS - 1}")

    def scene_seeds(self, index: int, count: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the seeds of the scenes of batch `index`. (count,) int64"""
        if not 0 <= index < BATCHES:
            raise ValueError(f"batch index is {index}; it must be in 0 … {BATCHES - 1}")
        if not 0 < count <= SCENES_PER_BATCH:
            raise ValueError(f"a batch of {count} scenes; it must be 1 … {SCENES_PER_BATCH}")
        first = ((SPLITS.index(self.split) * SEEDS + self.seed) * BATCHES + index) * SCENES_PER_BATCH
        return first + torch.arange(count, device=device)

    def batch(
        self,
        index: int,
        num_sequences: int,
        num_frames: int,
        height: int,
        width: int,
        num_tracks: int = 0,
        device: torch.device | str = "cpu",
    ) -> Batch:
        """Render one clip each of new scenes. Deterministic for equal arguments.

        A sequence depends on its position in the batch, not on the number of sequences.
        """
        return render_clips(
            self.scene_seeds(index, num_sequences, device), self.style, num_frames, (height, width), num_tracks
        )

    def sequence(
        self,
        scene: int,
        num_frames: int,
        height: int,
        width: int,
        *,
        start: int = 0,
        chunk: int = 16,
        num_laps: float | None = None,
        is_dynamic: bool | None = None,
        num_tracks: int = 0,
        device: torch.device | str = "cpu",
    ) -> Iterator[Batch]:
        """Render a video of one scene in chunks of frames. Each chunk is a batch of one sequence.

        Memory is independent of `num_frames`. Results are independent of `chunk`, except that tracks restart in each
        chunk.

        Args:
            scene: Batch index. The first scene of the batch is used.
            num_frames: Number of frames of the whole sequence.
            height: Image height in pixels.
            width: Image width in pixels.
            start: First frame. The last frame is `num_frames` - 1.
            chunk: Frames per chunk.
            num_laps: Laps in `num_frames` frames: 1 ends at the start, 2 revisits every position, 0 is a static camera
                with hand shake. None uses the default speed of the trajectory.
            is_dynamic: Whether objects move. None uses the scene's value. Moving objects need space, so there may be
                fewer objects.
            num_tracks: Number of tracked points.
            device: Device for rendering.
        """
        style = self.style if is_dynamic is None else replace(self.style, moving_prob=float(is_dynamic))
        stage = sample_setup(self.scene_seeds(scene, 1, device), style)
        fov = sample_fov(SceneRNG(stage.scenes.seeds, "clip"), style)
        pace = 1.0
        if num_laps is not None:
            pace = num_laps * stage.trajectories.period.abs().item() * FRAMES_PER_SECOND / num_frames
        for first in range(start, num_frames, chunk):
            frames = torch.arange(first, min(first + chunk, num_frames), device=device)
            times = (frames / FRAMES_PER_SECOND)[None]
            yield render_frames(stage, times, fov, (height, width), num_tracks, pace)


def render_clips(
    seeds: Tensor, style: SceneConfig, num_frames: int, image_size: tuple[int, int], num_tracks: int = 0
) -> Batch:
    """Render a training clip of each of B scenes."""
    stage = sample_setup(seeds, style)
    dice = SceneRNG(seeds, "clip")
    fov = sample_fov(dice, style)
    return render_frames(stage, sample_clip_times(stage, style, dice, fov, num_frames), fov, image_size, num_tracks)


def render_frames(
    stage: SceneSetup, times: Tensor, fov: Tensor, image_size: tuple[int, int], num_tracks: int = 0, pace: float = 1.0
) -> Batch:
    """Render the views of each scene at some times.

    Args:
        stage: Scenes and trajectories.
        times: In seconds. (B, S)
        fov: Field of view over the longer image side in radians. (B,)
        image_size: Height and width in pixels.
        num_tracks: Number of tracked points.
        pace: Speed factor of the camera. Object motion is unchanged.
    """
    cam_from_world = stage.trajectories.cam_from_world(times, pace)
    cameras = Cameras(cam_from_world, intrinsics_from_fov(fov, image_size)[:, None].expand(-1, times.shape[1], -1, -1))
    pictures = render(stage.scenes, cameras, times, image_size)
    tracks = None
    if num_tracks:
        tracks = sample_tracks(
            stage.scenes, cameras, times, pictures, num_tracks, SceneRNG(stage.scenes.seeds, "tracks")
        )
    sky = pictures.instance_ids == 0
    return Batch(
        images=pictures.images,
        depth=pictures.depth,
        valid=~sky,
        sky=sky,
        intrinsics=cameras.intrinsics,
        cam_from_world=cameras.cam_from_world,
        is_metric=torch.ones_like(stage.scenes.seeds, dtype=torch.bool),
        tracks=None if tracks is None else tracks.positions,
        visibility=None if tracks is None else tracks.visibility,
        instance_ids=pictures.instance_ids,
    )


def intrinsics_from_fov(fov: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return intrinsics with square pixels and principal point (W/2, H/2). (B,) radians, longer side → (B, 3, 3)"""
    height, width = image_size
    focal = max(height, width) / 2 / torch.tan(fov / 2)
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    rows = [focal, zero, one * width / 2, zero, focal, one * height / 2, zero, zero, one]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
