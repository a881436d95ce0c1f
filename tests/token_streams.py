"""Layers of a stream without a network, whose tokens say who they are."""

import numpy as np
import torch

from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.eviction import EvictionPolicy, PolicyContext

LAYERS, B, N, P, D = 2, 2, 2, 9, 4  # five special tokens and 2 × 2 patches
MOST_FRAMES = 40
VALUES = np.random.RandomState(7).standard_normal((LAYERS, B, N, MOST_FRAMES * P, D))
KEYS = np.random.RandomState(8).standard_normal((LAYERS, B, N, MOST_FRAMES * P, D))
KEYS[1, ..., 0] += 1.5  # the second layer's keys have a common part


def new_layers(policy: EvictionPolicy) -> list[KVCache]:
    return [KVCache(policy.capacity) for _ in range(LAYERS)]


def stored(layer: int, stream: int, head: int) -> np.ndarray:
    """All keys that have come or will come to a head. (tokens, D)"""
    return KEYS[layer, stream, head]


def come(cache: KVCache, layer: int, frame: int) -> None:
    """A frame's tokens join a layer's cache."""
    new = slice(frame * P, (frame + 1) * P)
    cache.append(frame, torch.from_numpy(KEYS[layer, :, :, new]), torch.from_numpy(VALUES[layer, :, :, new]))


def advance(policy: EvictionPolicy, layers: list[KVCache], policy_state: dict, frame: int, result=None) -> None:
    """A frame's tokens come, and the policy prunes."""
    for layer, cache in enumerate(layers):
        come(cache, layer, frame)
    policy.prune(PolicyContext(result, layers, policy_state))


def held(cache: KVCache, stream: int, head: int) -> set[int]:
    """Which tokens a head holds, by number: P per frame. Keys and values must be the same tokens'."""
    keys, values = (x[stream, head].numpy() for x in cache.keys_values())
    found = set()
    for key, value in zip(keys, values, strict=True):
        (layer, token) = (int(i[0]) for i in np.nonzero((KEYS[:, stream, head] == key).all(-1)))
        assert (VALUES[layer, stream, head, token] == value).all()
        found.add(token)
    assert len(found) == len(keys)
    return found
