"""Procedural scenes as training data: indexed batches of varying length and shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from procedural_scenes.scene import SceneConfig
from procedural_scenes.world import SyntheticScenes
from streamvggt.bounds import check_frames, check_whole
from streamvggt.data.transforms import MAX_SIDE, check_aspects, whole_patches
from streamvggt.data.view import Batch


@dataclass(frozen=True)
class SyntheticBatches:
    """Endless sequence of batches. Batch k is deterministic.

    Attributes:
        split: See `SyntheticScenes`.
        seed: See `SyntheticScenes`.
        style: See `SyntheticScenes`.
        size: Longer side of the images in pixels.
        aspect_ratios: Height / width. Each batch draws one.
        num_frames: Minimum and maximum frames per sequence. Each batch draws one length.
        length_warmup: Number of batches over which the maximum length grows from minimum to maximum; 0: no warm-up.
        max_images_per_process: Maximum number of images per batch, filled with complete sequences.
        num_tracks: Number of tracked points; 0: none.
        device: Device for rendering.
        patch_size: Image sides are multiples of it. The training sets it to that of the model.
    """

    split: str = "train"
    seed: int = 0
    size: int = 112
    aspect_ratios: Sequence[float] = (1.0, 0.75, 0.5, 1.5)
    num_frames: tuple[int, int] = (2, 8)
    length_warmup: int = 0
    max_images_per_process: int = 16
    num_tracks: int = 0
    device: str = "cpu"
    style: SceneConfig = field(default_factory=SceneConfig)
    patch_size: int = 14

    def __post_init__(self):
        check_frames(self.num_frames, self.max_images_per_process)
        check_whole(0, seed=self.seed, length_warmup=self.length_warmup, num_tracks=self.num_tracks)
        check_whole(1, MAX_SIDE, size=self.size, patch_size=self.patch_size)
        check_aspects(self.aspect_ratios)

    def for_patches(self, patch_size: int) -> SyntheticBatches:
        """Return the same batches for a model with this patch size."""
        return replace(self, patch_size=patch_size)

    def __getitem__(self, index: int) -> Batch:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        fewest, most = self.num_frames
        if index < self.length_warmup:
            most = fewest + (most - fewest) * index // self.length_warmup
        num_frames = int(torch.randint(fewest, most + 1, (), generator=generator))
        aspect = self.aspect_ratios[int(torch.randint(len(self.aspect_ratios), (), generator=generator))]
        longer, shorter = (whole_patches(self.size * share, self.patch_size) for share in (1, min(aspect, 1 / aspect)))
        height, width = (shorter, longer) if aspect <= 1 else (longer, shorter)
        world = SyntheticScenes(self.split, self.seed, self.style)
        num_sequences = self.max_images_per_process // num_frames
        return world.batch(index, num_sequences, num_frames, height, width, self.num_tracks, self.device)
