"""Streams of a pool are streams alone: nothing of the others shows, and everybody gets a turn."""

from dataclasses import dataclass
from threading import Thread

import pytest
import torch
from bounded_policies import BOUNDED
from small_models import assert_same, images, tiny

from streamvggt import (
    KeepAll,
    PoolFull,
    ProbeSaliency,
    SelfSelective,
    SessionPool,
    SlidingWindow,
    StreamSession,
    TokenDiversity,
)
from streamvggt.model.batched_memory import BatchedMemory
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.prediction import cat

POLICIES = [KeepAll(), *BOUNDED]


@pytest.fixture(scope="module")
def model():
    return tiny()


def drain(pool):
    """How many steps it took to compute all that waits."""
    steps = 0
    while pool.step():
        steps += 1
    return steps


def alone(model, frames, **options):
    session = StreamSession(model, **options)
    return cat([session.push(frame) for frame in frames])


@pytest.mark.parametrize("camera", ["per_iteration", "shared"])
def test_streams_are_what_they_are_alone(model, camera):
    """Every policy at once, streams that come and go at different times, more of them than fit into a step."""
    pool = SessionPool(model, max_batch=5)
    lengths = [12, 11, 9, 12, 8, 10, 12, 11, 9]
    frames = [images(1, length, 14, 28, seed=seed)[0] for seed, length in enumerate(lengths)]
    starts = [0, 0, 1, 3, 2, 0, 1, 2, 3]
    storages = ["auto", "int8", "auto"] * 3
    streams, futures = {}, [[] for _ in POLICIES]
    for time in range(15):
        for number, start in enumerate(starts):
            if time == start:
                streams[number] = pool.open(
                    policy=POLICIES[number], camera_cache=camera, kv_cache_dtype=storages[number]
                )
            if 0 <= time - start < lengths[number]:
                futures[number].append(streams[number].push(frames[number][time - start]))
            elif number in streams:
                streams.pop(number).close()
        assert drain(pool) == -(-len(streams) // 5)
    for policy, storage, own, futures_of_one in zip(POLICIES, storages, frames, futures, strict=True):
        found = cat([future.result(0) for future in futures_of_one])
        assert_same(found, alone(model, own, policy=policy, camera_cache=camera, kv_cache_dtype=storage))


def test_only_what_agrees_is_computed_together(model, monkeypatch):
    batches = []
    step = model.step
    monkeypatch.setattr(
        model, "step", lambda images, *rest, **more: batches.append(len(images)) or step(images, *rest, **more)
    )
    pool = SessionPool(model)
    small, large = images(1, 3, 14, 28)[0], images(1, 3)[0]
    options = [
        {},
        {},
        {},
        {"heads": ("camera", "depth", "points")},
        {"heads": ("camera",)},
        {"camera_cache": "shared"},
        {},
    ]
    shown = [small, large, small, small, small, small, small.float()]
    streams = [pool.open(**own) for own in options]
    futures = [[stream.push(frame) for frame in frames] for stream, frames in zip(streams, shown, strict=True)]
    drain(pool)
    assert batches == [3, 1, 1, 1, 1] * 3
    for own, frames, of_one in zip(options, shown, futures, strict=True):
        assert_same(cat([future.result(0) for future in of_one]), alone(model, frames, **own), 1e-6)


def test_streams_that_track_go_alone(model):
    pool = SessionPool(model)
    frames, others = images(1, 4, 14, 28)[0], images(1, 4, 14, 28, seed=1)[0]
    queries = torch.tensor([[3.0, 4.0], [20.0, 9.0]])
    tracking, session = pool.open(), StreamSession(model)
    plain = [pool.open(), pool.open()]
    for number, (frame, other) in enumerate(zip(frames, others, strict=True)):
        given = queries if number == 1 else None
        future = tracking.push(frame, query_points=given)
        for stream in plain:
            stream.push(other)
        assert drain(pool) == (1 if number == 0 else 2)
        # The tracker samples maps at rounded places, so roundings of the first, untracked step grow.
        assert_same(future.result(0), session.push(frame, query_points=given), 1e-8)


@pytest.mark.parametrize("where", ["same pool", "another pool"])
def test_a_saved_stream_continues_bit_exactly(model, tmp_path, where):
    frames = [images(1, 9, 14, 28, seed=seed)[0] for seed in range(len(POLICIES))]
    pool = SessionPool(model, max_batch=9)
    streams = [pool.open(policy=policy) for policy in POLICIES]

    def pushed(pool, streams, times):
        futures = [[stream.push(own[t]) for t in times] for stream, own in zip(streams, frames, strict=True)]
        drain(pool)
        return [cat([future.result(0) for future in of_one]) for of_one in futures]

    pushed(pool, streams, range(5))
    for number, stream in enumerate(streams):
        stream.save(tmp_path / f"{number}.pt")
    expected = pushed(pool, streams, range(5, 9))
    if where == "another pool":
        pool = SessionPool(model, max_batch=9)
        streams = [pool.open(policy=policy) for policy in POLICIES]
    for number, stream in enumerate(streams):
        stream.restore(tmp_path / f"{number}.pt")
    for found, before in zip(pushed(pool, streams, range(5, 9)), expected, strict=True):
        assert_same(found, before, tolerance=0)
    session = StreamSession(model, policy=POLICIES[1])
    session.restore(tmp_path / "1.pt")  # and a stream may leave the pool
    assert_same(cat([session.push(frame) for frame in frames[1][5:]]), expected[1])


def test_everybody_gets_a_turn(model):
    """A stream with many frames, and one size that most have, keep nobody waiting."""
    pool = SessionPool(model, max_batch=2)
    done = []

    def push(stream, name, size=(14, 28)):
        stream.push(images(1, 1, *size)[0, 0]).add_done_callback(lambda future: done.append(name))

    eager, common, rare = (
        pool.open(heads=("camera",)),
        [pool.open(heads=("camera",)) for _ in range(4)],
        pool.open(),
    )
    for _ in range(6):
        push(eager, "eager")
    for stream in common:
        push(stream, "common")
    push(rare, "rare", (28, 14))
    for _ in range(4):
        pool.step()
    assert done == ["eager", "common", "common", "common", "common", "eager", "rare"]
    assert drain(pool) == 4


def test_a_bad_frame_is_its_callers_matter(model):
    frames = images(1, 6, 14, 28)[0]
    pool = SessionPool(model)
    good, bad, blind = pool.open(policy=SlidingWindow(1, 2)), pool.open(), pool.open()
    for frame in frames[:2]:
        fine = [good.push(frame), bad.push(frame), blind.push(frame)]
    drain(pool)
    wrong = [bad.push(images(1, 1, 28, 28)[0, 0]), bad.push(frames[2].int()), bad.push(frames[2][:2])]
    fine = [good.push(frames[2]), bad.push(frames[2])]
    blind.push(torch.full_like(frames[2], torch.nan))
    assert drain(pool) == 1
    for future, output in zip(wrong, ("frame 2 is 28×28", "floating point", r"\(B, S, 3, H, W\)"), strict=True):
        with pytest.raises(ValueError, match=output):
            future.result(0)
    expected = alone(model, frames[:3], policy=SlidingWindow(1, 2)).select_frame(-1)
    assert_same(fine[0].result(0), expected)
    assert_same(fine[1].result(0), expected)
    with pytest.raises(ValueError, match=r"a frame of a pooled stream is \(3, H, W\)"):
        good.push(frames)


@dataclass(frozen=True)
class Broken(EvictionPolicy):
    """Fails now and then, where a stream looks at its result or in the middle of a layer."""

    where: str = "keep"
    is_index_based = False
    hooks = ("queries", "mlp_output")

    def select(self, frames, context):
        return self._fail("keep", frames[-1]) or frames

    def on_queries(self, layer, q, cache, policy_state):
        self._fail("queries", len(cache.frames) - 1)

    def on_mlp_output(self, layer, residual, policy_state):
        assert residual.shape[0] == 1

    def _fail(self, where, frame):
        if where == self.where and frame == 2:
            raise ZeroDivisionError("a broken policy")


@pytest.mark.parametrize("where", ["keep", "queries"])
def test_a_broken_policy_does_not_affect_other_streams(model, where):
    frames = images(1, 5, 14, 28)[0]
    pool = SessionPool(model)
    others = [
        TokenDiversity(3, 2),
        Broken("never"),
        ProbeSaliency(2, 1),
        SelfSelective(2, 1, anchors=0),
        SlidingWindow(0, 1),
    ]
    streams = [pool.open(policy=policy) for policy in (*others, Broken(where))]
    futures = [[stream.push(frame) for frame in frames] for stream in streams]
    drain(pool)
    for policy, of_one in zip(others, futures, strict=False):
        expected = alone(model, frames, policy=policy)
        assert_same(cat([future.result(0) for future in of_one]), expected)
    output = [future.exception(0) for future in futures[-1]]
    assert [type(error) for error in output] == [type(None)] * 2 + [ZeroDivisionError] * 3  # it stays before frame 2
    assert streams[-1].statistics().num_frames == 2


def test_a_step_too_large_for_the_device_is_computed_stream_by_stream(model, monkeypatch):
    frames = images(1, 7, 14, 28)[0]
    forward = model.depth_head.forward

    def with_little_memory(tokens, *rest):
        if tokens[0].shape[0] > 1:
            raise torch.OutOfMemoryError("no memory left")
        return forward(tokens, *rest)

    pool = SessionPool(model)
    streams = [pool.open(policy=policy) for policy in POLICIES[5:]]
    futures = [[stream.push(frame) for frame in frames] for stream in streams]
    with monkeypatch.context() as patch:
        patch.setattr(model.depth_head, "forward", with_little_memory)
        drain(pool)
    for policy, of_one in zip(POLICIES[5:], futures, strict=True):
        assert_same(cat([f.result(0) for f in of_one]), alone(model, frames, policy=policy), tolerance=0)


def test_limits(model):
    pool = SessionPool(model, max_streams=2, max_pending=3, max_stream_bytes=100_000)
    frame = images(1, 1, 14, 28)[0, 0]
    one, two = pool.open(), pool.open(policy=SlidingWindow(0, 1))
    with pytest.raises(PoolFull, match="all 2 streams of this pool are in use: close one"):
        pool.open()
    futures = [two.push(frame) for _ in range(3)]
    with pytest.raises(PoolFull, match="3 frames of this stream are pending"):
        two.push(frame)
    futures[1].cancel()
    drain(pool)
    assert two.statistics().num_frames == 2
    one.push(frame)
    drain(pool)
    assert one.statistics().memory_bytes > 100_000 > two.statistics().memory_bytes
    futures = [one.push(frame), two.push(frame)]
    drain(pool)
    with pytest.raises(PoolFull, match=r"takes 0.2 MB and may take 0.1 MB: choose a bounded .* instead of KeepAll\(\)"):
        futures[0].result(0)
    assert futures[1].result(0).num_frames == 1
    waiting = two.push(frame)
    two.close()
    assert waiting.cancelled() and pool.step() == 0
    with pytest.raises(RuntimeError, match="this stream is closed"):
        two.push(frame)
    pool.open()
    with pytest.raises(ValueError, match="max_batch must be 1 or more, not 0"):
        SessionPool(model, max_batch=0)


def test_a_thread_serves_many(model, tmp_path):
    """Each user pushes and waits in a thread of their own, and saves in between."""
    frames = [images(1, 6, 14, 28, seed=seed)[0] for seed in range(4)]
    found = {}

    def use(pool, number):
        stream = pool.open(policy=POLICIES[number])
        output = []
        for frame in frames[number]:
            output.append(stream.push(frame).result(60))
            stream.save(tmp_path / f"{number}.pt")
        assert stream.statistics().num_frames == 6
        found[number] = cat(output)
        stream.close()

    with SessionPool(model) as pool:
        users = [Thread(target=use, args=(pool, number)) for number in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        left = pool.open()
    for number in range(4):
        assert_same(found[number], alone(model, frames[number], policy=POLICIES[number]))
    with pytest.raises(RuntimeError, match="closed"):
        left.push(frames[0][0])
    with pytest.raises(RuntimeError, match="this pool is closed"):
        pool.open()


def test_an_interruption_leaves_nobody_waiting(model, monkeypatch):
    pool = SessionPool(model)
    future = pool.open().push(images(1, 1)[0, 0])

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(model.depth_head, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.step()
    with pytest.raises(RuntimeError, match="interrupted"):
        future.result(0)


def test_a_prediction_is_its_streams_alone(model):
    """Who keeps it does not keep the others'."""
    pool = SessionPool(model)
    futures = [pool.open(heads=("camera",)).push(images(1, 1)[0, 0]) for _ in range(4)]
    pool.step()
    pose = futures[0].result(0).pose_enc
    assert pose.untyped_storage().nbytes() == pose.nbytes


def test_memories_of_a_kind(model):
    frames = images(2, 3)
    memories = BatchedMemory([model.new_memory(SlidingWindow(0, 1)), model.new_memory()])
    with torch.no_grad():  # several frames at a time, too
        both = model.step(frames, memory=memories)
        assert_same(both.select_stream(1), model(frames[1:]))
    with pytest.raises(ValueError, match="expected 2 streams, one per memory, got 1"):
        model.step(frames[:1], memory=memories)
    with pytest.raises(ValueError, match="a stream that tracks points is computed alone"):
        model.step(frames, memory=memories, query_points=torch.ones(2, 1, 2))
    with pytest.raises(ValueError, match="all with the same camera_cache"):
        BatchedMemory([model.new_memory(), model.new_memory(camera_cache="shared")])
