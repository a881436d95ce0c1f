"""The procedural world as an endless stream of batches, and as sequences of any length.

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
"""A scene's seed has digits for its split, the world's seed, the batch and the place in it; so they never meet."""


@dataclass(frozen=True)
class SyntheticScenes:
    """Scenes without end, every one a function of its number.

        world = SyntheticScenes("train")
        batch = world.batch(0, num_sequences=16, num_frames=8, height=112, width=112)

    split: "train", "val" or "test"; no scene is in two of them.
    seed: another number, other scenes.
    style: what share of scenes is how.
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
        """Seeds of the scenes of batch `index`. (count,) int64"""
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
        """Clips of fresh scenes, one of each; the same for the same arguments.

        A sequence depends on its place in the batch and not on how many others there are.
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
        """A video of one scene, a chunk of frames at a time, each a batch of one sequence.

        Memory does not grow with `num_frames`, and how it is cut changes nothing; only tracks start anew in each chunk.

        Args:
            scene: the first scene of that batch number.
            start: first frame; the sequence goes on to frame `num_frames` - 1.
            laps: how often the way is gone round in `num_frames` frames: 1 ends where it began, 2 comes by every place
                twice, 0 stands still but for the hand's shake. None goes at its own pace.
            moving: whether things move; None leaves it to the scene. What moves needs room, so fewer things may stand
                there.
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
    """A training clip of each of B scenes."""
    stage = sample_setup(seeds, style)
    dice = SceneRNG(seeds, "clip")
    fov = sample_fov(dice, style)
    return render_frames(stage, sample_clip_times(stage, style, dice, fov, num_frames), fov, image_size, num_tracks)


def render_frames(
    stage: SceneSetup, times: Tensor, fov: Tensor, image_size: tuple[int, int], num_tracks: int = 0, pace: float = 1.0
) -> Batch:
    """What the camera of each scene sees at some times.

    Args:
        times: in seconds. (B, S)
        fov: over the larger side of the image, radians. (B,)
        pace: how much faster than by itself the camera goes its way; things move as ever.
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
    """Square pixels, principal point (W/2, H/2). (B,) radians over the larger side → (B, 3, 3)"""
    height, width = image_size
    focal = max(height, width) / 2 / torch.tan(fov / 2)
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    rows = [focal, zero, one * width / 2, zero, focal, one * height / 2, zero, zero, one]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
