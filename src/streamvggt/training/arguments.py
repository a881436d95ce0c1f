"""Checks of the arguments of `Trainer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamvggt.bounds import check_real, check_whole
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.vggt import VGGT

MINIMUM = {
    "num_validation_batches": 1,
    "validate_every": 1,
    "gradient_accumulation_steps": 1,
    "save_every": 1,
    "max_checkpoints": 1,
    "log_every": 1,
    "max_nonfinite_steps": 1,
    "seed": 0,
    "num_workers": 0,
}
"""Smallest value of each whole number."""


def check_settings(settings: Mapping[str, object]) -> None:
    """Check the numbers among the arguments.

    Raises:
        ValueError: If a number has the wrong type or is out of bounds.
    """
    for name, minimum in MINIMUM.items():
        check_whole(minimum, **{f"trainer.{name}": settings[name]})
    ema_decay, max_minutes, dense_share = (settings[name] for name in ("ema_decay", "max_minutes", "dense_share"))
    if ema_decay is not None:
        check_real(0, 1, **{"trainer.ema_decay": ema_decay})
    if max_minutes is not None and not 0 <= max_minutes < float("inf"):
        raise ValueError(f"trainer.max_minutes: expected minutes, 0 or more, or null, got {max_minutes!r}")
    if not 0 < dense_share <= 1:
        raise ValueError(f"dense_share: expected a fraction in (0, 1], got {dense_share}")


def check_network(model: VGGT, heads: Sequence[str], policy: EvictionPolicy | None) -> None:
    """Check that a network can be trained with the heads of the loss and an eviction policy.

    Raises:
        ValueError: If the network lacks a head, or the policy does not define a pattern of attention for training.
    """
    missing = [head for head in heads if head not in model.heads]
    if missing:
        raise ValueError(f"loss: requires the heads {', '.join(missing)}, which the network does not have.")
    if policy is not None and not (model.causal and policy.is_index_based):
        raise ValueError(
            f"policy {policy}: training requires an index-based policy, such as SlidingWindow or Keyframes, and a "
            f"network with causal=True, got causal={model.causal}."
        )
