"""Slots: what is dropped is gone, what is kept is found, and nothing else moves."""

import pytest
import torch

from streamvggt.layers import retained_tokens
from streamvggt.layers.kv_cache import UNBOUNDED, KVCache

B, N, P, D = 2, 3, 4, 5


def tokens(frame: int) -> torch.Tensor:
    """Keys that say which frame they are of."""
    return torch.full((B, N, P, D), float(frame))


def filled(frames, **options) -> KVCache:
    cache = KVCache(**options)
    for frame in frames:
        cache.append(frame, tokens(frame), -tokens(frame))
    return cache


def found(cache: KVCache) -> list[int]:
    keys, values = cache.keys_values()
    assert torch.equal(keys, -values)
    assert keys.shape == (B, N, len(cache), D)
    return [int(frame) for frame in keys[0, 0, ::P, 0]]


def test_a_new_frame_takes_the_place_of_a_dropped_one():
    cache = filled(range(5), capacity=5)
    before = cache.buffers()[0][0].data_ptr()
    cache.evict([2])
    assert len(cache) == 4 * P
    cache.append(5, tokens(5), -tokens(5))
    assert found(cache) == [0, 1, 5, 3, 4]
    assert cache.buffers()[0][0].data_ptr() == before


def test_holes_are_filled_from_the_end():
    cache = filled(range(6))
    cache.evict([0, 3, 5])
    assert sorted(found(cache)) == [1, 2, 4]
    assert len(cache) == 3 * P
    cache.evict([1, 2, 4])
    assert found(cache) == []
    cache.append(9, tokens(9), -tokens(9))
    assert found(cache) == [9]


def test_contents_are_views_not_copies():
    cache = filled(range(3))
    keys, values = cache.keys_values()
    assert keys.untyped_storage().data_ptr() == cache.buffers()[0][0].untyped_storage().data_ptr()
    assert values.untyped_storage().data_ptr() == cache.buffers()[1][0].untyped_storage().data_ptr()


def test_slots_double_and_stop_at_the_capacity():
    one_slot = filled([0], capacity=1).num_bytes
    rooms = []
    cache = KVCache(capacity=100)
    for frame in range(100):
        cache.append(frame, tokens(frame), -tokens(frame))
        rooms.append(cache.num_bytes / one_slot)
    assert sorted(set(rooms)) == [64, 100]
    unbounded = filled(range(20))
    assert unbounded.num_bytes == 32 * one_slot
    assert found(unbounded) == list(range(20))
    assert filled([0], capacity=3).num_bytes == 3 * one_slot


def test_a_frame_may_fill_several_slots_and_leaves_with_all_of_them():
    cache = KVCache()
    for frame in (0, 1, 2):
        for _ in range(3):
            cache.append(frame, tokens(frame), -tokens(frame))
    cache.evict([1])
    assert sorted(found(cache)) == [0] * 3 + [2] * 3


def test_pruned_by_tokens_it_grows_at_the_end():
    cache = filled(range(3))
    index = torch.arange(0, 3 * P, 2).expand(B, N, -1)
    cache.select_tokens(index)
    assert len(cache) == 6
    cache.append(7, tokens(7), -tokens(7))
    keys, _ = cache.keys_values()
    assert keys[0, 0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 7, 7, 7, 7]


def test_state_and_back():
    cache = filled(range(4))
    cache.evict([1])
    other = KVCache()
    other.load_state_dict(cache.state_dict(), torch.device("cpu"))
    assert found(other) == found(cache)
    assert other.num_bytes == cache.num_bytes
    empty = KVCache()
    empty.load_state_dict(KVCache().state_dict(), torch.device("cpu"))
    assert len(empty) == 0


def numbered(frame: int) -> torch.Tensor:
    """Keys that say which frame and which token of it they are."""
    return (10 * frame + torch.arange(P))[:, None].expand(B, N, P, D).float()


def with_retained_tokens(num_frames: int) -> KVCache:
    """Two retained frames of two tokens each, three slots."""
    cache = KVCache(capacity=3, num_retained_frames=2, tokens_per_retained=2)
    for frame in range(num_frames):
        cache.append(frame, numbered(frame), -numbered(frame))
    return cache


def contents(cache: KVCache) -> list[int]:
    keys, values = cache.keys_values()
    assert torch.equal(keys, -values)
    assert keys.shape[2] == len(cache)
    return keys[0, 0, :, 0].int().tolist()


def test_the_first_tokens_of_dropped_frames_stay():
    cache = with_retained_tokens(2)
    assert contents(cache) == [0, 1, 2, 3, 10, 11, 12, 13]
    cache.evict([0])
    assert contents(cache) == [0, 1, 10, 11, 12, 13]
    cache.append(2, numbered(2), -numbered(2))
    cache.evict([1])
    assert contents(cache) == [10, 11, 0, 1, 20, 21, 22, 23]


def test_the_oldest_retained_token_is_overwritten_and_nothing_grows():
    cache = with_retained_tokens(3)
    room = cache.num_bytes
    for frame in range(3, 20):
        cache.evict([frame - 3])
        cache.append(frame, numbered(frame), -numbered(frame))
        cache.keys_values()
    assert sorted(contents(cache)) == sorted(
        [150, 151, 160, 161, *(f * 10 + t for f in (17, 18, 19) for t in range(4))]
    )
    assert cache.num_bytes == room


def planes(cache):
    return [contents(cache), list(cache.frames), cache.state_dict()["num_evicted"], cache.is_pruned, len(cache)]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_what_is_retracted_has_never_been(steps):
    """After any overwriting: retained tokens, evicted and reused slots, compaction."""
    cache, undisturbed = with_retained_tokens(3), with_retained_tokens(3)
    for round in range(2):
        cache.begin()
        for number in range(steps):
            cache.evict([number, number + 1])
            cache.append(10 + number, numbered(30 + number), -numbered(30 + number))
            cache.keys_values()
        cache.rollback()
        cache.commit()
        assert planes(cache) == planes(undisturbed)
        for each in (cache, undisturbed):
            each.evict([round])
            each.append(3 + round, numbered(3 + round), -numbered(3 + round))
        assert planes(cache) == planes(undisturbed)


def test_pruning_is_retracted():
    """Also where the room for what was pruned has been given back."""
    cache = KVCache()
    for frame in range(3):
        cache.append(frame, numbered(frame), -numbered(frame))
    before = planes(cache)
    shape = cache.keys_values()[0].shape
    for _ in range(2):
        cache.begin()
        cache.select_tokens(torch.arange(1, shape[2], 2).expand(*shape[:2], -1))
        cache.reserve(len(cache))
        cache.append(3, numbered(3), -numbered(3))
        cache.rollback()
        cache.commit()
        assert planes(cache) == before


def test_state_and_back_with_retained_tokens():
    cache = with_retained_tokens(3)
    cache.evict([0])
    other = KVCache(capacity=3, num_retained_frames=2, tokens_per_retained=2)
    other.load_state_dict(cache.state_dict(), torch.device("cpu"))
    for each in (cache, other):
        each.append(3, numbered(3), -numbered(3))
        each.evict([1, 2])
    assert contents(other) == contents(cache)
    assert {0, 1, 10, 11, 20, 21} & set(contents(cache)) == {10, 11, 20, 21}


@pytest.mark.parametrize("bound", [UNBOUNDED, 5])
def test_room_for_many_retained_tokens_double(bound, monkeypatch, tmp_path):
    monkeypatch.setattr(retained_tokens, "MAX_INITIAL_RETAINED", 2)
    cache = KVCache(capacity=3, num_retained_frames=bound, tokens_per_retained=2)
    expected = []
    for frame in range(12):
        cache.append(frame, numbered(frame), -numbered(frame))
        if frame >= 2:
            cache.begin()
            cache.evict([frame - 2])
            cache.rollback()
            cache.evict([frame - 2])
            expected.append(frame - 2)
        of_retained = {10 * old + token for old in expected[-bound if bound < 100 else 0 :] for token in (0, 1)}
        slots = {10 * new + token for new in (frame - 1, frame) if new >= 0 for token in range(P)}
        assert set(contents(cache)) == of_retained | slots
        assert len(cache) == len(of_retained) + len(slots)
    other = KVCache(capacity=3, num_retained_frames=bound, tokens_per_retained=2)
    other.load_state_dict(cache.state_dict(), torch.device("cpu"))
    assert contents(other) == contents(cache)
    assert not cache.is_static or bound == 5


def test_some_frames_leave_nothing():
    cache = KVCache(num_retained_frames=UNBOUNDED, tokens_per_retained=1, retains=lambda frame: frame % 2 == 0)
    for frame in range(4):
        cache.append(frame, numbered(frame), -numbered(frame))
    cache.evict([0, 1, 2])
    assert sorted(contents(cache)) == [0, 20, 30, 31, 32, 33]


def test_cleared_it_can_be_retracted():
    cache = with_retained_tokens(6)
    before = contents(cache)
    cache.begin()
    cache.clear()
    assert contents(cache) == [] and len(cache) == 0
    for frame in range(20, 26):
        cache.append(frame, numbered(frame), -numbered(frame))
        cache.evict([frame - 1])
    cache.rollback()
    cache.commit()
    assert contents(cache) == before


def test_a_new_frame_takes_the_first_of_several_free_slots():
    cache = filled(range(4))
    cache.evict([0, 2])
    cache.append(4, tokens(4), -tokens(4))
    assert cache.frames == [4, 1, None, 3]


def test_a_first_frame_that_is_retracted_leaves_no_memory():
    cache = KVCache()
    cache.begin()
    cache.append(0, tokens(0), -tokens(0))
    cache.rollback()
    assert cache.num_bytes == 0 and cache.frames == []
