"""Sessions, pools, submaps and recorded steps of a network whose first frames are computed together."""

import pytest
import torch
from small_models import assert_same, images, tiny

from streamvggt import (
    FrameDiversity,
    KeepAll,
    MotionKeyframes,
    ProbeSaliency,
    SelfSelective,
    SessionPool,
    SlidingWindow,
    StreamSession,
    SubmapOptions,
    SubmapSession,
    TokenDiversity,
    Trajectory,
)
from streamvggt.model.batched_memory import BatchedMemory
from streamvggt.prediction import cat
from streamvggt.stream import static_step
from streamvggt.stream.feed import predicted

OPTIONS = {"heads": ("camera", "depth"), "scale_frames": 3, "global_rotation": "time", "pose": "world_from_camera"}
INFINITE = 10**9


@pytest.fixture(scope="module")
def model():
    return tiny(**OPTIONS)


def fed(session, frames):
    return cat([prediction for _, prediction in predicted(frames, session)])


def started(model, policy, frames):
    session = StreamSession(model, policy=policy)
    return session, [session.start(frames[:3])]


@pytest.mark.parametrize("policy", [FrameDiversity(3, 1), MotionKeyframes(4.0, 3, 3)], ids=repr)
def test_frames_chosen_by_evidence_are_a_mask(model, policy):
    frames = images(2, 10, 14, 28)
    session, found = started(model, policy, frames.unbind(1))
    seen = [[0], [0, 1], [0, 1, 2]]
    for number in range(3, 10):
        seen.append([*session.memory.kept_frames, number])
        found.append(session.push(frames[:, number]))
    assert len(seen[-1]) == 4
    with torch.no_grad():
        assert_same(cat(found), model(frames, attended_frames=seen))


@pytest.mark.parametrize("make", [TokenDiversity, SelfSelective, ProbeSaliency])
def test_with_room_for_all_tokens_all_stay(model, make):
    frames = images(1, 7, 14, 28)[0]
    assert_same(fed(StreamSession(model, policy=make(INFINITE)), frames), fed(StreamSession(model), frames), 0)


@pytest.mark.parametrize("policy", [TokenDiversity(2, 2), SelfSelective(3, 2), ProbeSaliency(2, 2)], ids=repr)
def test_chosen_tokens_are_bounded_saved_and_restored(model, policy, tmp_path):
    frames = images(2, 11, 14, 28).unbind(1)
    session, _ = started(model, policy, frames)
    for frame in frames[3:7]:
        session.push(frame)
    session.save(tmp_path / "state.pt")
    other = StreamSession(model, policy=policy)
    other.restore(tmp_path / "state.pt")
    for frame in frames[7:]:
        assert_same(other.push(frame), session.push(frame), tolerance=0)
    assert max(session.memory.num_tokens) <= policy.capacity * 8 * 1.5


@pytest.mark.parametrize("storage", ["auto", "int8"])
def test_interrupted_within_the_joint_step(model, storage, tmp_path):
    frames = images(1, 5, 14, 28)[0]
    whole, first = (StreamSession(model, kv_cache_dtype=storage) for _ in range(2))
    expected = [whole.push(frame) for frame in frames]
    first.push(frames[0])
    first.push(frames[1])
    first.save(tmp_path / "state.pt")
    second = StreamSession(model, kv_cache_dtype=storage)
    second.restore(tmp_path / "state.pt")
    assert_same(cat([second.push(frame) for frame in frames[2:]]), cat(expected[2:]), tolerance=0)


def test_streams_of_a_pool_are_streams_alone(model):
    frames = [images(1, 6, 14, 28, seed=seed)[0] for seed in range(3)]
    policies = [Trajectory(3, 1), Trajectory(3, 1, every=2), SlidingWindow(1, 2)]
    pool = SessionPool(model)
    streams, futures = [pool.open(policy=policy) for policy in policies], [[], [], []]
    for time in range(8):
        for number, stream in enumerate(streams):
            if 0 <= time - number < 6:
                futures[number].append(stream.push(frames[number][time - number]))
        while pool.step():
            pass
    for own, policy, results in zip(frames, policies, futures, strict=True):
        session = StreamSession(model, policy=policy)
        alone = cat([session.push(frame) for frame in own])
        assert_same(cat([future.result(0) for future in results]), alone)
    with pytest.raises(ValueError, match="computed alone until its joint first step is complete"):
        BatchedMemory([model.new_memory()])


def test_a_recorded_step_has_the_right_time(model, monkeypatch):
    monkeypatch.setitem(static_step.STEP_BUILDERS, "compile", lambda step: step)
    frames = images(2, 11, 14, 28).unbind(1)
    session, eager = (
        StreamSession(model, policy=SlidingWindow(1, 2, 2), step_mode=step) for step in ("compile", "eager")
    )
    for frame in frames:
        assert_same(session.push(frame), eager.push(frame), tolerance=0)
    assert session._static_step._run is not None


def test_submaps_start_with_joint_steps_and_can_be_interrupted(model, tmp_path):
    frames = images(1, 20, 14, 28)[0]
    size, policy = SubmapOptions(10, 4), Trajectory(3, 2)
    session = SubmapSession(model, submaps=size, policy=policy)
    found = fed(session, frames)
    alone = StreamSession(model, policy=policy)
    assert_same(found.select_frames(slice(0, 6)), fed(alone, frames[:6]).standardized(), tolerance=1e-9)
    assert session.statistics().num_submaps >= 2
    again = SubmapSession(model, submaps=size, policy=policy)
    parts = [again.start(frames[:3])]
    for number in range(3, 20):
        again.save(tmp_path / "state.pt")  # also where a new window waits for its joint step
        again = SubmapSession(model, submaps=size, policy=policy)
        again.restore(tmp_path / "state.pt")
        parts.append(again.push(frames[number]))
    assert_same(cat(parts), found, tolerance=0)


def test_a_new_submap_is_the_stream_of_its_own_frames(model):
    frames = images(1, 9, 14, 28)[0]
    session = SubmapSession(model, submaps=SubmapOptions(10, 4), policy=KeepAll())
    window = session._chain.new_submap(0)
    sights = [sight for frame in frames for sight in window.warm_up(frame, None)]
    alone = fed(StreamSession(model, policy=KeepAll()), frames).standardized()
    assert len(sights) == 9
    for number, sight in enumerate(sights):
        expected = alone.select_frame(number).cameras().cam_from_world[0, 0]
        torch.testing.assert_close(sight.cam_from_world, expected, rtol=0, atol=1e-11)
