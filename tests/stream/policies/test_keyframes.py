"""Keyframes by hand, against masks, and against a world whose motion is known."""

import pytest
import torch
from small_models import assert_same, images, tiny

from streamvggt import Keyframes, MotionKeyframes, Prediction
from streamvggt.stream.policies.overlap import coverage, mean_displacement, subsampled_points

HEADS = ("camera", "depth")


@pytest.fixture(scope="module")
def model():
    return tiny()


def test_key_frames_by_hand():
    assert Keyframes(2, 2).attended_frames(8) == [
        [0],
        [0, 1],
        [0, 2],
        [0, 2, 3],
        [0, 2, 4],
        [0, 4, 5],
        [0, 4, 6],
        [0, 6, 7],
    ]
    assert max(map(len, Keyframes(3, 4).attended_frames(40))) == Keyframes(3, 4).capacity


@pytest.mark.parametrize("policy", [Keyframes(2, 3), Keyframes(1, 4), Keyframes(5, 2)], ids=repr)
def test_key_frames_are_a_mask(model, policy):
    frames = images(2, 11)
    with torch.no_grad():
        masked = model(frames, heads=HEADS, attended_frames=policy.attended_frames(11))
        assert_same(model.step(frames, heads=HEADS, memory=model.new_memory(policy)), masked)


def output(x: float, depth: float = 2.0) -> Prediction:
    """A wall that a camera, moved sideways by `x`, looks at: 64 × 64 pixels, 90° wide, so 32 pixels focal length."""
    quarter = torch.pi / 2
    pose_enc = torch.tensor([[[-x, 0, 0, 0, 0, 0, 1, quarter, quarter]]])
    return Prediction((64, 64), pose_enc=pose_enc, depth=torch.full((1, 1, 64, 64, 1), depth))


def test_displacement_by_hand():
    here, there = output(0.0), output(0.5)
    poses = there.pose_enc[:, 0], here.pose_enc[:, 0]
    # What lies 2 away moves by 0.5 · 32 / 2 = 8 pixels.
    assert mean_displacement(subsampled_points(there), *poses, (64, 64)).item() == pytest.approx(8, abs=1e-4)
    assert mean_displacement(subsampled_points(here), poses[1], poses[1], (64, 64)).item() == pytest.approx(0, abs=1e-4)
    far = output(100.0)
    assert mean_displacement(subsampled_points(far), far.pose_enc[:, 0], poses[1], (64, 64)).item() == torch.inf
    behind = output(0.0, depth=-1.0)
    assert mean_displacement(subsampled_points(behind), poses[1], poses[1], (64, 64)).item() == torch.inf


def test_coverage_by_hand():
    """The image has 2 × 2 cells, each as wide as 2 where the wall is."""
    points = subsampled_points(output(0.0))
    for moved, part in [(0.0, 1.0), (1.7, 1.0), (1.9, 0.5), (5.0, 0.0)]:
        assert coverage(points, output(moved).pose_enc[:, 0], (64, 64)).item() == pytest.approx(part)
    assert coverage(points + 100, output(0.0).pose_enc[:, 0], (64, 64)).item() == 0


def walk(model, policy, positions) -> list[int]:
    """The frames held after all predictions of a camera at these positions."""
    memory = model.new_memory(policy)
    for x in positions:
        memory.update(1, output(x))
    return memory.kept_frames


def test_motion_by_hand(model):
    steps = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]  # 3.2 pixels each
    assert walk(model, MotionKeyframes(6.0, 10), steps) == [0, 2, 4, 6]
    assert walk(model, MotionKeyframes(6.0, 3), steps) == [0, 4, 6]
    assert walk(model, MotionKeyframes(6.0, 10), [0.0] * 40) == [0, 31]
    assert walk(model, MotionKeyframes(6.0, 10, max_interval=2), [0.0] * 8) == [0, 3, 6]
    assert walk(model, MotionKeyframes(6.0, 10), [0.0, 50.0, 50.0]) == [0, 1]


def test_the_caller_may_overwrite_a_prediction(model):
    memory = model.new_memory(MotionKeyframes())
    with torch.no_grad():
        prediction = model.step(images(1, 1), heads=HEADS, memory=memory)
    known = prediction.pose_enc[:, 0].clone()
    prediction.pose_enc.zero_()
    assert torch.equal(memory.policy_state["key_pose"], known) and known.abs().max() > 0
