"""Eviction policies: base class, input and state."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.choices import CameraCacheMode
from streamvggt.layers.attention import RetainedTokens
from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.aggregator import Aggregator
from streamvggt.prediction import Prediction

PolicyState = Tensor | list[Tensor] | list[int]


@dataclass(frozen=True)
class PolicyContext:
    """Input of policies that are not index-based, after each frame.

    Attributes:
        result: Prediction of the new frame, S = 1.
        layers: KV caches of the global layers, including the new frame.
        policy_state: State of the policy for this stream by name, saved and restored with the stream. Replace tensors,
            do not modify them in place.
    """

    result: Prediction
    layers: Sequence[KVCache]
    policy_state: dict[str, PolicyState]


class EvictionPolicy:
    """Eviction policy: selects the frames to keep. This base class keeps all frames.

    Subclasses in `streamvggt.stream.policies` override `select` or `prune`. Attention is independent of the policy: it
    attends to the cached tokens. For full sequences, `attended_frames` gives the equivalent attention mask, which is
    used in training and to test eviction against masking.
    """

    capacity: int | None = None
    """Maximum number of cached frames, including the new one. None: unbounded."""

    retained: int = 0
    """Number of latest evicted frames whose special tokens are kept: camera and register tokens in the global layers,
    the single token in the camera trunk."""

    is_index_based = True
    """True: `select` depends on frame indices only. False: `select` needs a context, so frames run one at a time."""

    required_heads: tuple[str, ...] = ()
    """Heads that must run, because the policy uses their predictions."""

    hooks: tuple[str, ...] = ()
    """Hooks to call during the forward pass: "mlp_output" for `on_mlp_output`, "queries" for `on_queries`."""

    is_token_level = False
    """True: `prune` evicts tokens of the global layers, and `select` applies to the camera caches only."""

    def select(self, frames: Sequence[int], context: PolicyContext | None) -> Sequence[int]:
        """Select the frames that the next frame attends to.

        Args:
            frames: Indices of the cached frames, oldest first. The last one is the new frame.
            context: Prediction, caches and policy state. None if the policy is index-based.

        Returns:
            Subset of `frames`, oldest first.
        """
        return frames

    def stores(self, frame: int) -> bool:
        """Return False for frames that `select` never keeps and whose special tokens are not retained."""
        return True

    def on_mlp_output(self, layer: int, residual: Tensor, policy_state: dict[str, PolicyState]) -> None:
        """Receive the MLP residual of the frame block before a global layer, for the new frame. (B, P, C)"""

    def on_queries(self, layer: int, q: Tensor, cache: KVCache, policy_state: dict[str, PolicyState]) -> None:
        """Receive the queries (B, N, P, D) of the new frame in a global layer, and the cache they attend to."""

    def prune(self, context: PolicyContext) -> None:
        """Evict tokens of the global layers with `KVCache.select_tokens`, after each frame if `is_token_level`."""

    def validate_heads(self, heads: Collection[str]) -> None:
        """Check that the heads of `required_heads` run.

        Raises:
            ValueError: If a required head is missing.
        """
        if missing := sorted(set(self.required_heads) - set(heads)):
            raise ValueError(
                f"policy {self}: expected the heads {', '.join(self.required_heads)}, got {', '.join(heads)}. "
                f"Add {', '.join(missing)} to the heads, or choose another policy."
            )

    def attended_frames(self, num_frames: int) -> list[list[int | RetainedTokens]]:
        """Return the frames that each frame of a sequence attends to. Requires an index-based policy.

        Args:
            num_frames: Number of frames S of the sequence.

        Returns:
            Per frame: retained tokens, kept frames, and the frame itself as the last entry.
        """
        assert self.is_index_based, f"{type(self).__name__} is not index-based"
        kept: list[int] = []
        dropped: list[int] = []
        attended = []
        for frame in range(num_frames):
            latest = dropped[-self.retained :] if self.retained else []
            retained = [RetainedTokens(old, Aggregator.num_special_tokens) for old in latest]
            attended.append([*retained, *kept, frame])
            frames = [*kept, frame]
            kept = list(self.select(frames, None))
            dropped += [old for old in frames if old not in kept and self.stores(old)]
        return attended


def check_joint_step(policy: EvictionPolicy, camera_cache: CameraCacheMode, scale_frames: int) -> None:
    """Check that a joint first step supports the policy and the camera cache mode.

    Raises:
        ValueError: If the camera cache is shared, or a token-level policy with the MLP hook has a capacity of at most
            `scale_frames`.
    """
    if camera_cache != "per_iteration":
        raise ValueError(
            f"camera_cache={camera_cache!r}: expected 'per_iteration' for a network with scale_frames={scale_frames}, "
            "whose camera head has one cache per iteration. Leave camera_cache out."
        )
    if policy.is_token_level and "mlp_output" in policy.hooks and policy.capacity <= scale_frames:
        raise ValueError(
            f"{policy}: expected room for more than the {scale_frames} frames of the joint first step, got room for "
            f"{policy.capacity}. Choose a larger budget."
        )


def copy_state(policy_state: dict[str, PolicyState]) -> dict[str, PolicyState]:
    """Copy a policy state and its lists. Tensors are not copied."""
    return {name: list(entry) if isinstance(entry, list) else entry for name, entry in policy_state.items()}


def state_num_bytes(policy_state: dict[str, PolicyState]) -> int:
    """Return the size of all tensors of a policy state in bytes."""
    lists = (entry if isinstance(entry, list) else [entry] for entry in policy_state.values())
    return sum(item.nbytes for items in lists for item in items if isinstance(item, Tensor))


def state_to_device(policy_state: dict[str, PolicyState], device: torch.device) -> dict[str, PolicyState]:
    """Copy a policy state and move its tensors to a device."""

    def moved(entry: Tensor | int) -> Tensor | int:
        return entry.to(device) if isinstance(entry, Tensor) else entry

    return {
        name: [moved(item) for item in entry] if isinstance(entry, list) else moved(entry)
        for name, entry in policy_state.items()
    }
