"""Number of CPU threads of PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from streamvggt.model.device import CGROUP, available_cpus

MIN_THREADED_WIDTH = 256
"""Minimum embedding width for several threads. The operators of narrower models take less than a millisecond each."""


def set_threads(embed_dim: int | None = None, cgroup: Path = CGROUP) -> None:
    """Set the number of PyTorch threads. If `OMP_NUM_THREADS` is set, nothing changes.

    By default, PyTorch counts all cores of the host, also in a container with a quota.

    A small model uses one thread. With several threads, every operator waits for the slowest thread. If another
    process is busy on one of the cores, each of the more than 1,000 operators of a frame then waits for that process.

    Args:
        embed_dim: Embedding width of the model to run. None: no model, all available cores.
        cgroup: Root folder of the Linux control groups, see `available_cpus`.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        is_small = embed_dim is not None and embed_dim < MIN_THREADED_WIDTH
        torch.set_num_threads(1 if is_small else available_cpus(cgroup))


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Limit PyTorch to one thread within the block, to avoid oversubscription by worker threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
