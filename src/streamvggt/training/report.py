"""Log lines and numbers about a training, beside its losses."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import torch
from accelerate import Accelerator

from streamvggt.training.batches import TrainingData
from streamvggt.training.objective import Objective
from streamvggt.training.optim import summarize_parameters


def describe_training(objective: Objective, data: TrainingData, patch_size: int) -> Iterator[str]:
    """Yield log lines: what is trained, with which targets and data."""
    network = objective.network
    yield summarize_parameters(network)
    if objective.encoder is not None:
        yield "teacher and student share the patch encoder: it runs once per batch"
    if patch_size != network.patch_size:
        yield f"Using image sides that are multiples of {patch_size} pixels, for the patches of teacher and student."
    for described in (objective.supervision, data):
        if hasattr(described, "describe"):
            yield described.describe()


def used_memory(device: torch.device) -> int:
    """Return the memory in bytes: the peak of PyTorch on a CUDA device, the resident set of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss


def replaced_samples(data: TrainingData, accelerator: Accelerator) -> dict[str, float]:
    """Return the number of replaced samples in all processes as "replaced/NAME", by data set with such samples.

    All processes must call this function.
    """
    if not hasattr(data, "num_replaced"):
        return {}
    counts = data.num_replaced()
    total = accelerator.reduce(torch.tensor(list(counts.values()), device=accelerator.device), "sum")
    return {f"replaced/{name}": count for name, count in zip(counts, total.tolist(), strict=True) if count}
