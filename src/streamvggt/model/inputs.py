"""Checks of the network's inputs.

B batch · S frames · H×W pixels · K query points.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from streamvggt.layers.attention import RetainedTokens
from streamvggt.model.config import validate_heads


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
            "resize them, e.g. with load_frames"
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


def validate_sequence(
    num_frames: int,
    attended_frames: Sequence[Sequence[int | RetainedTokens]] | None,
    dense_frames: Sequence[int] | None,
    *,
    causal: bool,
) -> None:
    """Check the options of a full sequence of S frames.

    Raises:
        ValueError: If `attended_frames` is given to a network that is not causal, or `dense_frames` contains no frame
            or other frames.
    """
    if attended_frames is not None and not causal:
        raise ValueError("`attended_frames` is for a network with causal=True")
    if dense_frames is not None and (not dense_frames or not set(dense_frames) <= set(range(num_frames))):
        raise ValueError(f"dense_frames: expected indices from 0 to {num_frames - 1}, got {[*dense_frames]}.")


def validate_stream(query_points: Tensor | None, *, causal: bool, scale_frames: int) -> None:
    """Check that a network supports a memory, and tracking in a stream.

    Raises:
        ValueError: If the network is not causal, or points are tracked in a stream with scale frames.
    """
    if not causal:
        raise ValueError("a network that sees all frames (causal=False) cannot go on with a memory")
    if query_points is not None and scale_frames:
        raise ValueError(
            "query_points: expected none in the stream of a network with scale_frames, whose first frames are "
            "computed several times. Track points in a whole sequence, without memory."
        )
