"""Checks of the network's inputs.

B batch · S frames · H×W pixels · K query points.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from torch import Tensor

from streamvggt.layers.attention import RetainedTokens
from streamvggt.model.config import VGGTConfig, validate_heads
from streamvggt.model.stream_memory import StreamMemory


class Network(Protocol):
    """Network whose inputs are checked."""

    config: VGGTConfig


def validate_sequence(
    network: Network,
    images: Tensor,
    heads: Collection[str] | None,
    query_points: Tensor | None,
    attended_frames: Sequence[Sequence[int | RetainedTokens]] | None,
    dense_frames: Sequence[int] | None,
) -> tuple[str, ...]:
    """Check the arguments of `VGGT.forward`.

    Returns:
        The heads to run.

    Raises:
        ValueError: If the arguments do not match the network or each other.
    """
    config, num_frames = network.config, images.shape[1] if images.ndim == 5 else 0
    validate_images(images, config.patch_size)
    heads = select_heads(heads, config.heads, is_tracking=query_points is not None)
    validate_queries(query_points, heads, len(images))
    if attended_frames is not None and not config.causal:
        raise ValueError("`attended_frames` is for a network with causal=True")
    if dense_frames is not None and (not dense_frames or not set(dense_frames) <= set(range(num_frames))):
        raise ValueError(f"dense_frames: expected indices from 0 to {num_frames - 1}, got {[*dense_frames]}.")
    return heads


def validate_step(
    network: Network,
    images: Tensor,
    memory: StreamMemory,
    heads: Collection[str] | None = None,
    query_points: Tensor | None = None,
) -> tuple[str, ...]:
    """Check the arguments of `VGGT.step` without changing the memory.

    Returns:
        The heads to run.

    Raises:
        ValueError: If the arguments do not match the network, the memory or each other.
    """
    config = network.config
    validate_images(images, config.patch_size)
    heads = select_heads(heads, config.heads, is_tracking=query_points is not None or memory.is_tracking)
    validate_queries(query_points, heads, len(images))
    if not config.causal:
        raise ValueError("Streaming requires a causal network, got causal=False. Load the weights with causal=True.")
    if query_points is not None and config.scale_frames:
        raise ValueError(
            "query_points: expected none in the stream of a network with scale_frames, whose first frames are "
            "computed several times. Track points in a whole sequence, without memory."
        )
    memory.validate_inputs(len(images), tuple(images.shape[-2:]), heads)
    return heads


def validate_images(images: Tensor, patch_size: int) -> None:
    """Check the images.

    Raises:
        ValueError: If they are not floating point of shape (B, S, 3, H, W), with sides that are multiples of the patch
            size.
    """
    if images.ndim != 5 or images.shape[2] != 3 or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point of shape (B, S, 3, H, W), not {images.dtype} {tuple(images.shape)}"
        )
    batch, num_frames, _, height, width = images.shape
    if not num_frames or not batch:
        raise ValueError("there must be at least one stream and one frame")
    if height % patch_size or width % patch_size or not height or not width:
        raise ValueError(
            f"images are {height}×{width} (height × width), but both must be multiples of {patch_size}: "
            f"resize them, e.g. with load_frames(…, patch_size={patch_size})"
        )


def select_heads(heads: Collection[str] | None, available: Sequence[str], *, is_tracking: bool) -> tuple[str, ...]:
    """Return the heads to run.

    Args:
        heads: Requested heads. None: all available heads, the track head only if there are points to track.
        available: Heads of the network.
        is_tracking: Whether there are points to track.

    Raises:
        ValueError: If a head is not available, or the track head has no points.
    """
    if heads is None:
        heads = tuple(head for head in available if head != "track" or is_tracking)
    validate_heads(heads, available, "this network was built with")
    if "track" in heads and not is_tracking:
        raise ValueError("the track head needs query_points: (x, y) in pixels of the first frame, (B, K, 2)")
    return tuple(heads)


def validate_queries(query_points: Tensor | None, heads: Collection[str], batch_size: int) -> None:
    """Check the query points.

    Raises:
        ValueError: If the track head does not run, or the shape is not (B, K, 2).
    """
    if query_points is None:
        return
    if "track" not in heads:
        raise ValueError(f"query_points were given but the heads to run are {', '.join(heads)}: add 'track'")
    if query_points.ndim != 3 or query_points.shape[0] != batch_size or query_points.shape[2] != 2:
        raise ValueError(f"query_points must be ({batch_size}, K, 2), not {tuple(query_points.shape)}")
