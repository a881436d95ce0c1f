"""Complementary frames by hand."""

import math

import torch

from streamvggt import FrameDiversity
from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.eviction import PolicyContext


def held(policy: FrameDiversity, degrees: list[float]) -> list[int]:
    """The frames held after frames whose keys point in these directions, and vary around them."""
    context = PolicyContext(None, [KVCache(policy.capacity)], {})
    cache, frames = context.layers[0], []
    for frame, angle in enumerate(degrees):
        mean = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))]) * (frame + 1)
        keys = (mean + torch.tensor([[5.0, -3.0], [-5.0, 3.0]])).expand(1, 1, 2, 2)
        cache.append(frame, keys, keys)
        frames.append(frame)
        kept = policy.select(frames, context)
        cache.evict(set(frames) - set(kept))
        frames = list(kept)
    assert len(context.policy_state["mean_keys"]) == len(frames)
    return frames


def test_what_a_later_frame_stands_for_goes():
    assert held(FrameDiversity(3), [0, 90, 100]) == [0, 1, 2]
    assert held(FrameDiversity(3), [0, 90, 100, 180]) == [0, 2, 3]
    assert held(FrameDiversity(3), [0, 90, 180, 170]) == [0, 1, 3]


def test_what_the_first_frame_stands_for_goes():
    assert held(FrameDiversity(3), [0, 10, 90, 180]) == [0, 2, 3]
    assert held(FrameDiversity(3), [0, 90, 5, 180]) == [0, 1, 3]


def test_recent_frames_stay():
    assert held(FrameDiversity(3, 2), [0, 90, 180, 180]) == [0, 2, 3]
    assert held(FrameDiversity(3, 1), [0, 90, 180, 180]) == [0, 1, 3]
