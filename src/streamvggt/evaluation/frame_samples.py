"""The frames of CO3Dv2's sequences that are evaluated: random ones, as published."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streamvggt.datasets.co3d_annotations import Frame, has_far_camera


@dataclass(frozen=True)
class FrameSample:
    """Frames of a sequence in the order in which the network processes them.

    ids: positions in the sequence's annotations.
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
    """The frames to evaluate on, as published: all draws come from one generator, one sequence after the other.

    So a draw depends on all sequences before it: other categories, other frames.

    Args:
        annotations: category → sequence → frames, in the order of the published categories.
        min_num_images: sequences with fewer are left out, and draw nothing.
        fast: of each category, ten random sequences at most.
        per_sequence: draws of a generator of each sequence's own, which do not depend on what else is evaluated.
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
