"""Random frame samples of CO3Dv2 sequences, as in the reference implementation."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streamvggt.datasets.co3d_annotations import Frame, has_far_camera


@dataclass(frozen=True)
class FrameSample:
    """Frames of a sequence in processing order.

    Attributes:
        ids: Positions in the annotations of the sequence.
    """

    category: str
    sequence: str
    ids: tuple[int, ...]
    frames: list[Frame]

    @property
    def name(self) -> str:
        return f"{self.category}/{self.sequence}"


def sample_frames(
    annotations: Mapping[str, Mapping[str, list[Frame]]],
    *,
    seed: int,
    num_frames: int = 10,
    min_num_images: int = 50,
    fast: bool = False,
    per_sequence: bool = False,
) -> list[FrameSample]:
    """Sample the frames to evaluate. As in the reference implementation, all sequences share one random generator.

    Therefore a sample depends on all earlier sequences, and other categories give other frames.

    Args:
        annotations: Category → sequence → frames, in the order of the published categories.
        seed: Seed of the random generator.
        num_frames: Frames per sequence.
        min_num_images: Minimum number of images. Shorter sequences are skipped without drawing.
        fast: Sample at most ten random sequences per category.
        per_sequence: Use a separate generator per sequence, so that samples do not depend on other sequences.
    """
    sequences, frames = random.Random(seed), np.random.RandomState(seed)
    samples = []
    for category, there in annotations.items():
        names = sorted(there)
        if fast and len(names) >= 10:
            names = sorted(sequences.sample(names, 10))
        for name in names:
            count = len(there[name])
            if count < max(min_num_images, num_frames) or has_far_camera(there[name]):
                continue
            if per_sequence:
                frames = np.random.RandomState((seed + zlib.crc32(f"{category}/{name}".encode())) % (1 << 32))
            ids = tuple(frames.choice(count, num_frames, replace=False).tolist())
            samples.append(FrameSample(category, name, ids, [there[name][index] for index in ids]))
    return samples
