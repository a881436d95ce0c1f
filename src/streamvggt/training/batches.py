"""Batches of a training: their interface, their image sizes and their order among processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from streamvggt.data.view import Batch


class TrainingData(Protocol):
    """Infinite sequence of batches. Equal indices give equal batches in all processes.

    Optional methods:

    - `for_patches(patch_size) -> TrainingData`: the same data with image sides that are multiples of `patch_size`.
    - `describe() -> str`: log line at the start of the training.
    - `num_replaced() -> dict[str, int]`: number of invalid samples replaced in this process, by data set.
    """

    def __getitem__(self, index: int) -> Batch: ...


def in_patches(data: TrainingData | None, patch_size: int) -> TrainingData | None:
    """Return the data with image sides that are multiples of `patch_size`, if the data supports `for_patches`."""
    return data.for_patches(patch_size) if hasattr(data, "for_patches") else data


def load_batches(data: TrainingData, first: int, every: int, *, num_workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Load the batches first, first + every, first + 2·every, … infinitely.

    Args:
        data: Data to load.
        first: Index of the first batch.
        every: Distance between indices, the number of processes.
        num_workers: Number of data-loading processes.
        pin_memory: Copy batches to pinned memory, required for asynchronous copies to CUDA devices.
    """
    return iter(
        DataLoader(
            _IndexedBatches(data),
            batch_size=None,
            sampler=_StridedSampler(first, every),
            num_workers=num_workers,
            pin_memory=pin_memory,
        )
    )


def dense_frames(num_frames: int, share: float, generator: torch.Generator) -> list[int] | None:
    """Draw the indices of the frames whose depth and points are trained, at least one. None: all frames."""
    if share == 1:
        return None
    count = max(1, round(share * num_frames))
    return sorted(torch.randperm(num_frames, generator=generator)[:count].tolist())


class _IndexedBatches(Dataset):
    def __init__(self, data: TrainingData):
        self.data = data

    def __getitem__(self, index: int) -> Batch:
        return self.data[index]


class _StridedSampler(Sampler):
    """Yield first, first + every, first + 2·every, … infinitely."""

    def __init__(self, first: int, every: int):
        self.first, self.every = first, every

    def __iter__(self) -> Iterator[int]:
        number = self.first
        while True:
            yield number
            number += self.every
