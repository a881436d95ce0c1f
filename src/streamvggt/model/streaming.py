"""Steps of a stream: each call updates the memory completely, or not at all."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor

from streamvggt.model.aggregator import Aggregator
from streamvggt.model.stream_memory import StreamMemory
from streamvggt.prediction import Prediction, cat


class StreamingNetwork(Protocol):
    """Network that runs frames with a memory."""

    aggregator: Aggregator

    def predict(
        self,
        images: Tensor,
        heads: Collection[str],
        past: StreamMemory,
        query_points: Tensor | None = None,
        patch_tokens: Tensor | None = None,
    ) -> Prediction:
        """Run frames that attend to the memory."""


def run_steps(
    network: StreamingNetwork,
    images: Tensor,
    memory: StreamMemory,
    heads: Collection[str],
    query_points: Tensor | None,
    patch_tokens: Tensor | None,
) -> Prediction:
    """Run checked inputs of `VGGT.step`, as many frames at a time as the eviction policy permits.

    Returns:
        The prediction for all frames.
    """
    predictions: list[Prediction] = []
    num_together = images.shape[1] if memory.is_index_based else 1
    # Disable inference mode even if the caller enabled it, because cached tensors outlive the call.
    with torch.inference_mode(False), torch.no_grad():
        memory.begin(len(images), tuple(images.shape[-2:]))
        try:
            first = 0
            while first < images.shape[1]:
                is_joint = memory.is_opening
                count = memory.num_missing if is_joint else num_together
                part = slice(first, first + count)
                encoded = None if patch_tokens is None else patch_tokens[:, part]
                if is_joint:
                    predictions.append(_joint_step(network, images[:, part], memory, heads, encoded))
                else:
                    queries = query_points if first == 0 else None
                    predictions.append(_next_step(network, images[:, part], memory, heads, queries, encoded))
                first += count
            memory.commit()
        except BaseException:
            memory.rollback()
            raise
    return cat(predictions) if len(predictions) > 1 else predictions[0]


def _next_step(network, images, memory, heads, query_points, patch_tokens) -> Prediction:
    """Run frames that are appended to the memory."""
    prediction = network.predict(images, heads, memory, query_points, patch_tokens)
    memory.update(prediction.num_frames, prediction)
    return prediction


def _joint_step(network, images, memory, heads, patch_tokens) -> Prediction:
    """Run the first frames of a stream jointly (LingBot-Map). Frames of earlier calls are computed again."""
    encoded = memory.reopen(network.aggregator.encode_patches(images) if patch_tokens is None else patch_tokens)
    prediction = _next_step(network, images, memory, heads, None, encoded)
    return prediction.select_frames(slice(encoded.shape[1] - images.shape[1], None))
