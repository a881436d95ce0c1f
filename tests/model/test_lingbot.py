"""Outputs equal those of the published LingBot-Map class, however the stream is cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import GOLDEN_SIZE, assert_same, formula_weights, golden_input, images, tiny

from streamvggt import (
    KeepAll,
    Keyframes,
    SelfSelective,
    SlidingWindow,
    StreamSession,
    StreamVGGT,
    TokenDiversity,
    Trajectory,
)
from streamvggt.losses.multitask import MultiTaskLoss
from streamvggt.losses.target import Target
from streamvggt.prediction import cat

GOLDEN = np.load(Path(__file__).parent.parent / "goldens" / "family" / "lingbot_small.npz")
OPTIONS = {"heads": ("camera", "depth"), "global_rotation": "time", "pose": "world_from_camera"}
IMAGES = golden_input(5, 1, 9, 28, 42)[0]
POLICY = Trajectory(anchor=2, recent=2)


@pytest.fixture(scope="module")
def golden_model():
    return formula_weights(StreamVGGT(**GOLDEN_SIZE, **OPTIONS, scale_frames=2))


def small(scale_frames: int = 3, **options) -> StreamVGGT:
    return tiny(scale_frames=scale_frames, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def model():
    return small()


def check(prediction, run, first=0):
    for field, value in prediction.numpy().items():
        np.testing.assert_allclose(value, GOLDEN[f"{run}/{field}"][:, first:], atol=1e-4, rtol=0, err_msg=field)


def stream(model, frames, chunks, policy=None):
    memory = model.new_memory(policy)
    return cat([model.step(chunk, memory=memory) for chunk in frames.split(chunks, 1)])


@pytest.mark.parametrize("chunks", [[2] + [1] * 7, [2, 3, 4], [9]], ids=str)
def test_streams_after_the_joint_step_in_any_chunks(golden_model, chunks):
    check(stream(golden_model, IMAGES, chunks, POLICY), "stream")


def test_masks_over_the_whole_sequence(golden_model):
    with torch.no_grad():
        check(golden_model(IMAGES, attended_frames=POLICY.attended_frames(9)), "stream")


def test_single_frames_differ_only_before_the_joint_step_is_complete(golden_model):
    found = stream(golden_model, IMAGES, [1] * 9, POLICY)
    check(found.select_frames(slice(1, None)), "stream", first=1)


def test_saved_and_restored_in_the_middle(golden_model, tmp_path):
    session = StreamSession(golden_model, policy=POLICY)
    found = [session.start(IMAGES[0, :2].unbind())]
    for number in range(2, 9):
        session.save(tmp_path / "state.pt")
        session = StreamSession(golden_model, policy=POLICY)
        session.restore(tmp_path / "state.pt")
        found.append(session.push(IMAGES[0, number]))
    check(cat(found), "stream")


def test_keyframes_with_the_fault_of_the_published_attention(golden_model):
    """There the clock and the camera trunk skip the frames between keyframes, but the global blocks store them."""
    keyframes, memory = Trajectory(2, 2, every=3), golden_model.new_memory(POLICY)
    of_camera = [cache for blocks in memory.camera for cache in blocks]
    found = []
    for chunk in IMAGES.split([2] + [1] * 7, 1):
        found.append(golden_model.step(chunk, memory=memory))
        newest = memory.num_frames - 1
        if not keyframes.stores(newest):
            memory.num_stored -= 1
            for cache in of_camera:
                cache.retains = keyframes.stores
                cache.evict({newest})
    check(cat(found), "keyframes3_sdpa")
    intended = stream(golden_model, IMAGES, [2] + [1] * 7, keyframes)
    difference = np.abs(intended.numpy()["pose_enc"] - GOLDEN["keyframes3_sdpa/pose_enc"]).max((0, 2))
    assert difference[:4].max() < 1e-4 and difference[4:].min() > 1e-3


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale_frames": 1},
        {"scale_frames": 20},
        {"scale_frames": 5, "embed_dim": 48, "num_heads": 3},
        {"embed_dim": 64, "num_heads": 1, "encoder_num_heads": 2},
        {"global_rotation": "space", "pose": "camera_from_world"},
        {"heads": ("camera", "depth", "points")},
    ],
    ids=str,
)
def test_the_stream_is_the_full_causal_pass(options, batch):
    model, frames = small(**options), images(batch, 7, 14, 28)
    num_joint = min(options.get("scale_frames", 3), 7)
    with torch.no_grad():
        whole = model(frames)
        chunks = [num_joint] + [1] * (7 - num_joint)
        assert_same(stream(model, frames, chunks), whole)
        assert_same(stream(model, frames, [7]), whole)
        later = slice(num_joint - 1, None)
        assert_same(stream(model, frames, [1] * 7).select_frames(later), whole.select_frames(later))


def test_a_batch_of_two_is_two_batches_of_one(model):
    frames = images(2, 6, 14, 28)
    both = stream(model, frames, [3, 1, 2], Trajectory(3, 1))
    for number in range(2):
        assert_same(both.select_stream(number), stream(model, frames[number : number + 1], [3, 3], Trajectory(3, 1)))


def test_the_last_frame_changes_no_result_after_the_joint_step_but_first_frames_attend_to_each_other(model):
    frames = images(1, 6, 14, 28)
    other = frames.clone()
    other[:, 5] += 1
    with torch.no_grad():
        a, b = model(frames), model(other)
        assert torch.equal(a.depth[:, :5], b.depth[:, :5])
        other[:, 2] += 1
        assert (model(other).depth[:, 0] - a.depth[:, 0]).abs().max() > 1e-6


POLICIES = [
    KeepAll(),
    Trajectory(3, 2),
    Trajectory(3, 2, every=2),
    Trajectory(3, 1, every=3),
    Trajectory(1, 1),
    SlidingWindow(1, 2),
    SlidingWindow(3, 2, 2),
    SlidingWindow(0, 0),
    SlidingWindow(0, 0, 3),
    Keyframes(3, 3),
]


@pytest.mark.parametrize("chunks", [[3] + [1] * 8, [5, 6], [11]], ids=str)
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_dropping_is_masking(model, policy, chunks):
    frames = images(2, 11, 14, 28)
    with torch.no_grad():
        masked = model(frames, attended_frames=policy.attended_frames(11))
        assert_same(stream(model, frames, chunks, policy), masked)


def test_frames_between_keyframes_do_not_advance_the_clock(model):
    memory = model.new_memory(Trajectory(3, 2, every=3))
    times = []
    for frame in images(1, 10, 14, 28).split([3] + [1] * 7, 1):
        times.append(memory.times(1).item() if not memory.is_opening else 0)
        model.step(frame, memory=memory)
    assert times == [0, 3, 4, 4, 4, 5, 5, 5]
    assert memory.num_stored == 6 and memory.num_frames == 10
    assert {len(cache) for blocks in memory.camera for cache in blocks} == {6}  # of every stored frame one token


def test_only_special_tokens_of_old_frames_stay(model):
    memory = model.new_memory(Trajectory(3, 2))
    for frame in images(1, 12, 14, 28).split([3] + [1] * 9, 1):
        model.step(frame, memory=memory)
    assert memory.kept_frames == [0, 1, 2, 10, 11]
    assert memory.num_tokens == [5 * 8 + 7 * 6] * 4
    assert {len(cache) for blocks in memory.camera for cache in blocks} == {12}


def test_a_joint_step_that_failed_can_be_made_again(model, monkeypatch):
    frames = images(1, 8, 14, 28)[0]
    session, undisturbed = (StreamSession(model, policy=Trajectory(3, 1)) for _ in range(2))
    for frame in frames:
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(model.depth_head, "forward", lambda *_: 1 / 0)
            session.push(frame)
        assert_same(session.push(frame), undisturbed.push(frame), tolerance=0)


def test_poses_are_inverted_where_they_become_cameras(model):
    frames = images(1, 4, 14, 28)
    twin = small(pose="camera_from_world")
    with torch.no_grad():
        ours, raw = model(frames), twin(frames)
    assert torch.equal(ours.pose_enc, raw.pose_enc)
    ours_from_world, world_from_theirs = ours.cameras().cam_from_world, raw.cameras().world_from_cam
    torch.testing.assert_close(ours_from_world, world_from_theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.cameras().intrinsics, raw.cameras().intrinsics, rtol=0, atol=0)
    standard = ours.standardized()
    assert standard.pose == "camera_from_world"
    torch.testing.assert_close(standard.cameras().cam_from_world, ours_from_world, rtol=0, atol=0)
    assert cat([standard, ours]).pose == "camera_from_world"


def test_losses_compare_poses_of_one_direction(model):
    frames = images(1, 4, 14, 28)
    prediction = model(frames)
    target = Target(prediction.map(lambda tensor: tensor.detach() + 0.1))
    loss = MultiTaskLoss()(prediction, target)
    for a in (prediction, prediction.standardized()):
        for b in (target.prediction, target.prediction.standardized()):
            assert MultiTaskLoss()(a, Target(b)).terms["camera"] == loss.terms["camera"]
    as_encoded = MultiTaskLoss()(
        replace(prediction, pose="camera_from_world"), Target(target.prediction.standardized())
    )
    assert abs(as_encoded.terms["camera"] - loss.terms["camera"]) > 1e-3
    loss.total.backward()
    assert model.camera_head.pose_branch.fc2.weight.grad.abs().sum() > 0
    model.zero_grad()


def test_combinations_that_cannot_be_are_rejected_in_words(model):
    output = "camera_cache='shared': expected 'per_iteration' for a network with scale_frames=3"
    with pytest.raises(ValueError, match=output):
        model.new_memory(camera_cache="shared")
    with pytest.raises(ValueError, match="room for more than the 3 frames of the joint first step, got room for 3"):
        model.new_memory(SelfSelective(2, 1, anchors=0))
    model.new_memory(TokenDiversity(2, 1))
    tracking = small(heads=("camera", "track"))
    with pytest.raises(ValueError, match="query_points: expected none in the stream of a network with scale_frames"):
        tracking.step(images(1, 1), query_points=torch.zeros(1, 2, 2), memory=tracking.new_memory())
    with pytest.raises(ValueError, match="step_mode='compile': expected a memory that becomes full, got Trajectory"):
        StreamSession(model, step_mode="compile")
    with pytest.raises(ValueError, match="global_rotation: expected space or time, got 'both'"):
        small(global_rotation="both")
    with pytest.raises(ValueError, match="pose: expected camera_from_world or world_from_camera, got 3"):
        small(pose=3)
    with pytest.raises(ValueError, match="start: expected the first frames of a stream, got 0 after 0"):
        StreamSession(model).start([])


def test_a_session_without_a_policy_has_the_published_memory(model):
    assert StreamSession(model).policy == Trajectory(anchor=3, recent=63)
    assert StreamSession(tiny()).policy == KeepAll()
