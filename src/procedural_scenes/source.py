"""Read procedural scenes frame by frame, with the interface of a data set on disk."""

from __future__ import annotations

from functools import lru_cache

import torch

from procedural_scenes.clip import sample_fov
from procedural_scenes.rng import SceneRNG
from procedural_scenes.scene import SceneSetup, sample_setup
from procedural_scenes.trajectory import FRAMES_PER_SECOND
from procedural_scenes.world import SyntheticScenes, render_frames
from streamvggt.data.view import View


class SyntheticSource:
    """`num_scenes` videos with `num_frames` frames each.

    Scene names are "scene_000000" and so on. For training, `SyntheticScenes.batch` is much faster because it renders
    many frames together.
    """

    def __init__(self, world: SyntheticScenes, num_scenes: int, num_frames: int, height: int, width: int):
        self.world = world
        self.scenes = [f"scene_{number:06d}" for number in range(num_scenes)]
        self.num_frames = num_frames
        self.image_size = (height, width)

    def frames(self, scene: str) -> range:
        """Return the frame indices of a scene in temporal order."""
        self._number(scene)
        return range(self.num_frames)

    def read(self, scene: str, frame: int) -> View:
        """Render one view.

        Raises:
            KeyError: If the scene does not exist.
            IndexError: If the frame does not exist.
        """
        stage = _stage(self.world, self._number(scene))
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"{scene} has frames 0 … {self.num_frames - 1}, not {frame}")
        times = torch.tensor([[frame]]) / FRAMES_PER_SECOND
        fov = sample_fov(SceneRNG(stage.scenes.seeds, "clip"), self.world.style)
        return render_frames(stage, times, fov, self.image_size).view(0, 0)

    def _number(self, scene: str) -> int:
        number = scene.removeprefix("scene_")
        if scene not in self.scenes[int(number) : int(number) + 1] if number.isdigit() else True:
            raise KeyError(f"no {scene!r} among {len(self.scenes)} synthetic scenes")
        return int(number)


@lru_cache(maxsize=64)
def _stage(world: SyntheticScenes, number: int) -> SceneSetup:
    return sample_setup(world.scene_seeds(number, 1), world.style)
