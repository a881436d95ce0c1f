"""Build networks with random weights: from a configuration, with a seed, or by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

RANDOM_CONFIGS: dict[str, dict[str, Any]] = {
    "random:small": {
        "image_size": 224,
        "embed_dim": 192,
        "depth": 4,
        "num_heads": 3,
        "encoder_depth": 4,
        "encoder_num_heads": 3,
        "camera_trunk_depth": 2,
        "camera_num_heads": 6,
        "dpt_layers": (0, 1, 2, 3),
        "dpt_features": 32,
        "dpt_channels": (24, 48, 96, 96),
        "track_features": 64,
        "track_levels": 5,
        "track_dim": 96,
        "track_depth": 2,
        "track_virtual": 16,
    },
    "random:full": {},
}
"""Sizes of the networks with random weights by name."""


def is_random(name: str) -> bool:
    """Return whether a name of weights stands for random weights."""
    return name.startswith("random:")


def build_named(build: Callable[[dict[str, Any]], Network], arguments: dict[str, Any], source: str) -> Network:
    """Build a network. Errors start with `source`, the origin of the arguments.

    Raises:
        ValueError: If an argument is invalid.
    """
    try:
        return build(arguments)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def init_random_model(build: Callable[[dict[str, Any]], Network], name: str, arguments: dict[str, Any]) -> Network:
    """Build a network of `RANDOM_CONFIGS` with random weights of a fixed seed.

    Args:
        build: Function of constructor arguments that returns the network.
        name: Name in `RANDOM_CONFIGS`.
        arguments: Further constructor arguments.

    Raises:
        ValueError: If the name is unknown or an argument is invalid.
    """
    if name not in RANDOM_CONFIGS:
        raise ValueError(f"weights: expected {' or '.join(RANDOM_CONFIGS)}, got {name!r}.")
    return init_seeded(build, {**RANDOM_CONFIGS[name], **arguments}, name, seed=0)


def init_seeded(
    build: Callable[[dict[str, Any]], Network], arguments: dict[str, Any], source: str, seed: int
) -> Network:
    """Build a network with random weights of a seed. The global random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_named(build, arguments, source)
