"""Build networks with random weights: from a configuration, with a seed, or by name."""

from __future__ import annotations

from typing import Any

import torch

from streamvggt.model.vggt import VGGT, StreamVGGT

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


def build_model(arguments: dict[str, Any], source: str) -> VGGT:
    arguments = dict(arguments)
    causal = arguments.pop("causal")
    try:
        return StreamVGGT(**arguments) if causal else VGGT(causal=causal, **arguments)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def init_random_model(name: str, arguments: dict[str, Any]) -> VGGT:
    if name not in RANDOM_CONFIGS:
        raise ValueError(f"there are no weights {name!r}; random ones are {', '.join(RANDOM_CONFIGS)}")
    return init_seeded({**RANDOM_CONFIGS[name], **arguments}, name, seed=0)


def init_seeded(arguments: dict[str, Any], source: str, seed: int) -> VGGT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(arguments, source)
