"""Number of CPU threads of PyTorch, chosen by the size of the model."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from streamvggt.model.device import CGROUP, available_cpus
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import load_model

MIN_THREADED_WIDTH = 256
"""Minimum embedding width for several threads. The operators of narrower models take less than a millisecond each."""


def choose_threads(model: VGGT, cgroup: Path = CGROUP) -> None:
    """Set the number of PyTorch threads for a model. If `OMP_NUM_THREADS` is set, nothing changes.

    A small model uses one thread. With several threads, every operator waits for the slowest thread. If another
    process is busy on one of the cores, each of the more than 1,000 operators of a frame then waits for that process.

    Args:
        model: Loaded model.
        cgroup: Root folder of the Linux control groups, see `available_cpus`.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if model.config.embed_dim < MIN_THREADED_WIDTH else available_cpus(cgroup))


def load_with_threads(name: str, **options) -> VGGT:
    """Load a model and choose the threads for the model. Arguments and errors as for `load_model`."""
    model = load_model(name, **options)
    choose_threads(model)
    return model
