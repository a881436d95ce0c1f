"""Validation of a training."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from streamvggt.training.batches import TrainingData
from streamvggt.training.log import LossAverager, depth_figure
from streamvggt.training.objective import BatchLoss, Objective


@torch.no_grad()
def validate(
    objective: Objective, model: nn.Module, data: TrainingData, num_batches: int
) -> tuple[dict[str, float], np.ndarray | None]:
    """Compute the mean losses of the first batches. All processes must call this function.

    Args:
        objective: Loss of a batch.
        model: The network as it is wrapped for distribution, or its moving average.
        data: Validation data.
        num_batches: Number of batches, distributed among the processes.

    Returns:
        Mean loss and terms. In the process of the first batch, a figure of its depths, uint8, (S·H, 3W, 3), if the
        loss has a depth head.
    """
    accelerator, figure = objective.accelerator, None
    averager = LossAverager(objective.criterion.heads, accelerator.device)
    # Forward passes of a sharded network are collective, so all processes run the same number of passes.
    for first in range(0, num_batches, accelerator.num_processes):
        position = first + accelerator.process_index
        is_counted = position < num_batches
        position %= num_batches
        batch = data[position]
        result = objective(model, batch, torch.Generator().manual_seed(position))
        if is_counted:
            averager.add(result.loss)
        if position == 0 and result.prediction.depth is not None:
            figure = _depth_figure(batch.images[0], result)
    return {name: value.item() for name, value in averager.means(accelerator).items()}, figure


def _depth_figure(images: torch.Tensor, result: BatchLoss) -> np.ndarray:
    """Draw the depths of the first sequence. Without a target depth, the prediction takes its place."""
    predicted, target = result.prediction.depth[0, ..., 0], result.target
    known = predicted if target.prediction.depth is None else target.prediction.depth[0, ..., 0]
    return depth_figure(images, known, predicted, None if target.valid is None else target.valid[0])
