"""Attention of a full sequence: the counterpart of a stream memory for `VGGT.forward`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamvggt.layers.attention import AttentionPattern, CausalPattern, RetainedTokens, full_pattern


@dataclass(frozen=True)
class FullSequence:
    """Attention patterns of a full sequence, with the interface of `StreamMemory` that network and heads read.

    Args:
        pattern: Attention pattern of all global blocks and of the camera trunk.
        num_layers: Number of global blocks.
        camera_blocks: Number of blocks in the camera trunk.
        stored_frames: Number of earlier stored frames of each frame. None: 0, 1, … (1, S)
    """

    pattern: AttentionPattern
    num_layers: int
    camera_blocks: int
    stored_frames: Tensor | None = None

    is_empty = True
    camera_cache = "per_iteration"
    tracks = None

    @classmethod
    def of(
        cls,
        config: Any,
        num_frames: int,
        num_special_tokens: int,
        attended_frames: Sequence[Sequence[int | RetainedTokens]] | None = None,
    ) -> FullSequence:
        """Return the attention of a network to a full sequence.

        Without `causal`, all frames attend to all frames (VGGT, arXiv 2503.11651, Sec. 3.2). With `causal`, frames
        attend to themselves and earlier frames (StreamVGGT, arXiv 2507.11539, Sec. 3.2).

        Args:
            config: The `VGGTConfig`.
            num_frames: Number of frames S.
            num_special_tokens: Number of special tokens of a frame.
            attended_frames: Frames that each frame attends to, including itself. None: all frames up to itself.
        """
        if not config.causal:
            return cls(full_pattern, config.depth, config.camera_trunk_depth)
        stored = None
        if attended_frames is not None:
            attended_frames = with_special_tokens(attended_frames, num_special_tokens)
            stored = stored_before(attended_frames, config.scale_frames)
        pattern = CausalPattern(num_frames, attended_frames, config.scale_frames)
        return cls(pattern, config.depth, config.camera_trunk_depth, stored)

    def layer_patterns(self, num_frames: int) -> list[AttentionPattern]:
        """Return the attention pattern of each global block."""
        return [self.pattern] * self.num_layers

    def camera_patterns(self, num_frames: int) -> list[list[AttentionPattern]]:
        """Return the attention pattern of each block of the camera trunk, for all iterations."""
        return [[self.pattern] * self.camera_blocks]

    def times(self, num_frames: int) -> Tensor | None:
        """Return `stored_frames`."""
        return self.stored_frames

    def mlp_hook(self, num_frames: int) -> None:
        """Return None: no eviction policy observes the blocks."""


def with_special_tokens(
    attended_frames: Sequence[Sequence[int | RetainedTokens]], num_special_tokens: int
) -> list[list[int | RetainedTokens]]:
    """Set the token counts of the retained tokens in `attended_frames` to `num_special_tokens`."""
    return [
        [RetainedTokens(what.frame, num_special_tokens) if isinstance(what, RetainedTokens) else what for what in row]
        for row in attended_frames
    ]


def stored_before(attended_frames: Sequence[Sequence[int | RetainedTokens]], joint: int) -> Tensor:
    """Count the earlier stored frames of each frame.

    A frame is stored if the next frame attends to it, or if it is one of the first `joint` frames.

    Returns:
        Counts. (1, S)
    """
    times = [0]
    for frame, row in enumerate(attended_frames[1:]):
        seen = {what.frame if isinstance(what, RetainedTokens) else what for what in row}
        times.append(times[-1] + (frame < joint or frame in seen))
    return torch.tensor([times])
