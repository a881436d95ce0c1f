"""Inputs of a head besides the frame tokens, and the run of a dense head on chunks of frames.

B batch · S frames · P tokens of a frame · C channels of the aggregator · H×W pixels · h×w patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.model.full_sequence import FullSequence
from streamvggt.model.heads.dpt import DPTHead
from streamvggt.model.stream_memory import StreamMemory
from streamvggt.prediction import of_frames


@dataclass(frozen=True, kw_only=True)
class HeadContext:
    """Inputs of one call that the heads share.

    Attributes:
        image_size: Height and width in pixels.
        num_special_tokens: Number of tokens of a frame before its patch tokens. Token 0 is the camera token.
        past: Memory of the stream, or the full sequence.
        query_points: Points to track. None: no points, or the points in `past`. (B, K, 2)
        dense_frames: Indices of the frames to predict maps for. None: all frames.
        fine_maps: Function that returns the encoder's fine maps of selected frames (None: all). (B·S, channels, …) each
        frames_per_chunk: Maximum number of frames per call of a dense head.
    """

    image_size: tuple[int, int]
    num_special_tokens: int
    past: StreamMemory | FullSequence
    query_points: Tensor | None
    dense_frames: Sequence[int] | None
    fine_maps: Callable[[Sequence[int] | None], list[Tensor]]
    frames_per_chunk: int


def run_dense(head: DPTHead, tokens: Sequence[Tensor], context: HeadContext, frames: Sequence[int] | None) -> Tensor:
    """Run a dense head on `frames_per_chunk` frames at a time, to limit its memory.

    Args:
        head: Dense head.
        tokens: Frame tokens of the four layers. (B, S, P, 2C) each
        context: Inputs of the call.
        frames: Indices of the frames to run. None: all frames.

    Returns:
        Output of the head. (B, S or len(frames), H, W, channels)
    """
    levels = [of_frames(level, frames) for level in tokens]
    levels = [level[:, :, context.num_special_tokens :].flatten(0, 1) for level in levels]
    maps = [*levels, *(context.fine_maps(frames) if len(head.skips) else ())]
    chunks = zip(*(each.split(context.frames_per_chunk) for each in maps), strict=True)
    parts = [head(chunk[: len(levels)], context.image_size, chunk[len(levels) :]) for chunk in chunks]
    out = torch.cat(parts) if len(parts) > 1 else parts[0]
    return out.movedim(1, -1).unflatten(0, (len(tokens[0]), -1))
