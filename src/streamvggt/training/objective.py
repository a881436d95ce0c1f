"""Loss of a batch: targets, forward pass and criterion."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from streamvggt.data.view import Batch
from streamvggt.losses.criterion import Criterion, LossOutput
from streamvggt.losses.target import Target
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction
from streamvggt.training.auxiliary_loss import AuxiliaryLoss
from streamvggt.training.supervision import Supervision, shared_encoder
from streamvggt.transfer import uploaded


class BatchLoss(NamedTuple):
    """Loss of a batch, with the prediction and the target that it compares."""

    loss: LossOutput
    prediction: Prediction
    target: Target


class Objective:
    """Compute the loss of batches, in training and in validation.

    Args:
        network: The trained network, not wrapped for distribution.
        supervision: Source of targets.
        criterion: Loss of predictions against targets. Only its heads are run.
        accelerator: Device and precision.
        policy: Eviction policy that restricts attention. None: the attention pattern of the network.

    Attributes:
        encoder: Frozen patch encoder that teacher and student share. None: each runs its own.
    """

    def __init__(
        self,
        network: VGGT,
        supervision: Supervision,
        criterion: Criterion,
        accelerator: Accelerator,
        policy: EvictionPolicy | None = None,
    ):
        self.network, self.supervision, self.criterion = network, supervision, criterion
        self.accelerator, self.policy = accelerator, policy
        self.encoder = shared_encoder(network, supervision)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        generator: torch.Generator,
        *,
        auxiliary_loss: AuxiliaryLoss | None = None,
        dense_frames: Sequence[int] | None = None,
    ) -> BatchLoss:
        """Run the model on a batch and compare its prediction with the target.

        Args:
            model: The network as it is wrapped for distribution, or its moving average.
            batch: Batch on the host.
            generator: Random generator of the query points.
            auxiliary_loss: Additional losses on activations of the network.
            dense_frames: Frames to predict maps for. None: all frames.
        """
        queries = self.supervision.query_points(batch, generator) if "track" in self.criterion.heads else None
        device = self.accelerator.device
        queries = None if queries is None else uploaded(queries, device)
        batch = replace(batch, instance_ids=None).to(device, non_blocking=device.type != "mps")  # see `uploaded`
        heads = [head for head in self.criterion.heads if head != "track" or queries is not None]
        patches = None
        recording = nullcontext() if auxiliary_loss is None else auxiliary_loss.record(self.network)
        with self.accelerator.autocast(), recording as activations:
            if self.encoder is not None:
                with torch.no_grad():
                    patches = self.encoder(batch.images)
            target = self.supervision(batch, heads, queries, patches)
            prediction = model(
                batch.images,
                heads=heads,
                query_points=queries,
                attended_frames=None if self.policy is None else self.policy.attended_frames(batch.num_frames),
                patch_tokens=patches,
                dense_frames=dense_frames,
            )
        loss = self.criterion(prediction, target)
        if auxiliary_loss is not None:
            loss = loss.with_terms(auxiliary_loss(batch, activations, self.network))
        return BatchLoss(loss, prediction, target)
