"""Steps of a stream: each call updates the memory completely, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from streamvggt.model.stream_memory import StreamMemory
from streamvggt.prediction import Prediction, cat


def run_steps(
    predict: Callable[..., Prediction],
    encode_patches: Callable[[Tensor], Tensor],
    images: Tensor,
    memory: StreamMemory,
    heads: Collection[str],
    query_points: Tensor | None,
    patch_tokens: Tensor | None,
) -> Prediction:
    """Run checked inputs of `VGGT.step`, as many frames at a time as the eviction policy permits.

    Args:
        predict: `VGGT.predict`.
        encode_patches: `Aggregator.encode_patches`.
        images, memory, heads, query_points, patch_tokens: As for `VGGT.step`.

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
                is_joint = memory.is_opening  # the first frames of LingBot-Map; those of earlier calls are run again
                count = memory.num_missing if is_joint else num_together
                part = images[:, first : first + count]
                encoded = None if patch_tokens is None else patch_tokens[:, first : first + count]
                if is_joint:
                    encoded = memory.reopen(encode_patches(part) if encoded is None else encoded)
                queries = query_points if first == 0 and not is_joint else None
                prediction = predict(part, heads, memory, queries, encoded)
                memory.update(prediction.num_frames, prediction)
                predictions.append(prediction.select_frames(slice(-part.shape[1], None)) if is_joint else prediction)
                first += count
            memory.commit()
        except BaseException:
            memory.rollback()
            raise
    return cat(predictions) if len(predictions) > 1 else predictions[0]
