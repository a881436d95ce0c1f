"""What every policy owes: all is kept if there is room for all, nothing grows, and a saved stream goes on."""

import itertools
from contextlib import suppress

import pytest
import torch
from bounded_policies import BOUNDED
from host_sync import Watch
from small_models import SHALLOW, assert_same, images, tiny

from streamvggt import (
    FrameDiversity,
    KeepAll,
    Keyframes,
    MotionKeyframes,
    ProbeSaliency,
    SelfSelective,
    SlidingWindow,
    StreamSession,
    TokenDiversity,
)
from streamvggt.layers.kv_cache import KVCache
from streamvggt.prediction import cat

INFINITE = 10**9
WITH_ROOM_FOR_ALL = [
    SlidingWindow(1, INFINITE, 2),
    Keyframes(1, INFINITE),
    MotionKeyframes(0, INFINITE),
    FrameDiversity(INFINITE),
    TokenDiversity(INFINITE),
    SelfSelective(INFINITE),
    ProbeSaliency(INFINITE),
]


@pytest.fixture(scope="module")
def model():
    return tiny(**SHALLOW)


def pushed(session, frames):
    return cat([session.push(frame) for frame in frames[0]])


@pytest.mark.parametrize("policy", WITH_ROOM_FOR_ALL, ids=repr)
def test_with_room_for_all_it_is_keep_all_bit_exactly(model, policy):
    frames = images(1, 7)
    session = StreamSession(model, policy=policy)
    assert_same(pushed(session, frames), pushed(StreamSession(model, policy=KeepAll()), frames), tolerance=0)
    assert session.memory.kept_frames == list(range(7))


@pytest.mark.parametrize("policy", BOUNDED, ids=repr)
def test_memory_is_flat(policy):
    session = StreamSession(
        tiny(heads=("camera", "depth"), **SHALLOW), policy=policy, heads=("camera", *policy.required_heads)
    )
    frames = images(1, 10, 14, 28)[0]
    sizes, entries = [], []
    for number in range(120):
        session.push(frames[number % 10])
        sizes.append(session.memory.num_bytes)
        entries.append(num_entries(session.memory.state_dict()))
    assert set(sizes[40:70]) == set(sizes[90:])  # what policies note may come and go
    assert set(entries[40:70]) == set(entries[90:])  # and no list of numbers hides beside the tensors
    assert max(session.memory.num_tokens) < 12 * 7
    assert max(len(cache) for blocks in session.memory.camera for cache in blocks) <= 12


def num_entries(state):
    """Of lists within lists, all in all."""
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return 1 + sum(num_entries(part) for part in parts)


@pytest.mark.parametrize("policy", BOUNDED, ids=repr)
def test_a_saved_stream_continues_bit_exactly(model, policy, tmp_path):
    frames = images(2, 12, 14, 28).unbind(1)
    session = StreamSession(model, policy=policy)
    for frame in frames[:7]:
        session.push(frame)
    session.save(tmp_path / "state.pt")
    expected = [session.push(frame) for frame in frames[7:]]
    other = StreamSession(model, policy=policy)
    other.restore(tmp_path / "state.pt")
    found = [other.push(frame) for frame in frames[7:]]
    assert_same(cat(found), cat(expected), tolerance=0)
    assert other.memory.kept_frames == session.memory.kept_frames


@pytest.mark.parametrize("policy", BOUNDED, ids=repr)
def test_a_step_that_failed_can_be_made_again(model, policy, monkeypatch):
    """In whatever state the memory is: not full yet, about to forget, pruned."""
    frames = images(1, 9, 14, 28)[0]
    queries = torch.tensor([[3.0, 4.0]])
    session, undisturbed = StreamSession(model, policy=policy), StreamSession(model, policy=policy)
    for number, frame in enumerate(frames):
        options = {"query_points": queries} if number == 0 else {}
        with monkeypatch.context() as patch:
            patch.setattr(model.track_head.tracker, "forward", out_of_memory)  # after everything else
            with pytest.raises(torch.OutOfMemoryError):
                session.push(frame, **options)
        expected = undisturbed.push(frame, **options)
        assert_same(session.push(frame, **options), expected, tolerance=0)


@pytest.mark.parametrize("method", ["evict", "select_tokens"])
@pytest.mark.parametrize("policy", BOUNDED, ids=repr)
def test_a_frame_that_failed_while_the_memory_forgot_can_be_pushed_again(model, policy, method, monkeypatch):
    """The network has answered, and a layer has been pruned or has dropped frames already: the next one fails."""
    frames = images(1, 12, 14, 28)[0]
    session, undisturbed = StreamSession(model, policy=policy), StreamSession(model, policy=policy)
    forget = getattr(KVCache, method)
    for frame in frames:
        calls = itertools.count()

        def failing(cache, what, calls=calls):
            if len(what) and next(calls) == 1:
                out_of_memory()
            forget(cache, what)

        with monkeypatch.context() as patch, suppress(torch.OutOfMemoryError):  # where there is something to forget
            patch.setattr(KVCache, method, failing)
            session.push(frame)
        if session.num_frames == undisturbed.num_frames:
            assert_same(session.push(frame), undisturbed.push(frame), tolerance=0)
        else:
            undisturbed.push(frame)
    assert session.num_frames == undisturbed.num_frames == 12


def out_of_memory(*args):
    raise torch.OutOfMemoryError("no memory left")


@pytest.mark.parametrize("policy", [p for p in BOUNDED if not (p.is_token_level or p.retained)], ids=repr)
def test_evicting_frames_is_masking(model, policy):
    """Whatever made it choose: the stream is what a mask computes that hides the same frames."""
    frames = images(2, 12)
    session, seen, output = StreamSession(model, policy=policy), [], []
    for number, frame in enumerate(frames.unbind(1)):
        seen.append([*session.memory.kept_frames, number])
        output.append(session.push(frame))
    with torch.no_grad():
        assert_same(cat(output), model(frames, attended_frames=seen))
    assert len(set(map(len, seen))) >= 3 and 0 in seen[-1]
    assert len(seen[-1]) <= policy.capacity < 12


@pytest.mark.parametrize("policy", BOUNDED, ids=repr)
def test_several_frames_in_one_call_are_single_frames(model, policy):
    frames = images(1, 9, 14, 28)
    with torch.no_grad():
        together = model.step(frames, memory=model.new_memory(policy))
    assert_same(together, pushed(StreamSession(model, policy=policy), frames))


@pytest.mark.parametrize("policy", BOUNDED, ids=repr)
def test_the_host_reads_a_number_per_frame_at_most(model, policy):
    """Where it must know which frame a slot holds; elsewhere none."""
    session = StreamSession(model, policy=policy, heads=("camera", *policy.required_heads))
    frames = images(1, 9, 14, 28)[0]
    with Watch() as watch:
        for frame in frames:
            session.push(frame)
    assert len(watch.seen) <= (9 if isinstance(policy, (MotionKeyframes, FrameDiversity)) else 0)


@pytest.mark.parametrize("policy", [policy for policy in BOUNDED if policy.required_heads], ids=repr)
def test_required_heads_must_run(model, policy):
    message = "expected the heads camera, depth, got points. Add camera, depth to the heads"
    with pytest.raises(ValueError, match=message):
        StreamSession(model, policy=policy, heads=("points",))
    with pytest.raises(ValueError, match=message):
        model.step(images(1, 1), heads=("points",), memory=model.new_memory(policy))


@pytest.mark.parametrize("policy", BOUNDED, ids=repr)
def test_keys_and_values_of_a_byte_change_little(policy, tmp_path):
    model = tiny(heads=("camera", "depth"))
    frames = images(2, 9, 14, 28).unbind(1)
    plain = StreamSession(model, policy=policy)
    session = StreamSession(model, policy=policy, kv_cache_dtype="int8")
    exact = [plain.push(frame) for frame in frames]
    output = [session.push(frame) for frame in frames[:6]]
    session.save(tmp_path / "state.pt")
    other = StreamSession(model, policy=policy, kv_cache_dtype="int8")
    other.restore(tmp_path / "state.pt")
    output += [session.push(frame) for frame in frames[6:]]
    assert_same(cat([other.push(frame) for frame in frames[6:]]), cat(output[6:]), tolerance=0)
    error = (cat(output).depth - cat(exact).depth).abs().max() / cat(exact).depth.std()
    assert 0 < error < 0.05
    assert session.memory.num_tokens == plain.memory.num_tokens
    assert session.num_bytes < 0.4 * plain.num_bytes  # of float64
    with pytest.raises(ValueError, match="kv_cache_dtype 'int8', this one has 'auto'"):
        plain.restore(tmp_path / "state.pt")
