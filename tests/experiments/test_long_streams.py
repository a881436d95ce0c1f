"""Long streams: the kinds of video are what they say, and scores are of the truth, in any world, of any prefix."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import tiny

from experiments import long_streams
from experiments.long_streams import (
    LAP,
    SPACING,
    GroundTruth,
    StreamOutputs,
    disagreement,
    load,
    load_ground_truth,
    render_video,
    save,
    score,
    still_camera,
    stream,
)
from experiments.stream_figure import draw_streams
from streamvggt import SlidingWindow, StreamSession
from streamvggt.geometry.camera import Cameras, invert_pose, pose_enc_from_cameras
from streamvggt.stream.policies.self_selective import SelfSelective

SCENE = 3


def poses(kind: str, num_frames: int) -> torch.Tensor:
    """World-from-camera. (S, 3, 4)"""
    return invert_pose(torch.cat([batch.cam_from_world[0] for batch in render_video(kind, SCENE, num_frames, 14, 14)]))


def distance(ways: torch.Tensor, a: int, b: int) -> float:
    return (ways[a, :, 3] - ways[b, :, 3]).norm().item()


def test_each_kind_of_video_is_what_its_name_says():
    static, moving, loop = poses("static", 60), poses("moving", 60), poses("loop", LAP + 20)
    assert max(distance(static, 0, t) for t in range(60)) < 0.05
    assert distance(moving, 0, 59) > 0.2
    for t in (0, 10, 19):  # the hand shakes
        assert distance(loop, t, t + LAP) < 0.05 < 0.5 < distance(loop, t, t + LAP // 2)
    revisit = poses("revisit", 40)
    steps = revisit[:, :, 3].diff(dim=0).norm(dim=-1)
    assert distance(revisit, 0, 39) < 1.5 * steps.max() < 0.5 < distance(revisit, 0, 20)
    with pytest.raises(ValueError, match="'spiral' is unknown; choose one of static, moving, loop, revisit"):
        next(render_video("spiral", SCENE, 10, 14, 14))


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> GroundTruth:
    return load_ground_truth("loop", SCENE, 40, 28, 42, tmp_path_factory.mktemp("truth"))


def biased(
    truth: GroundTruth, scale: float = 1.0, turn: torch.Tensor | None = None, shift: float = 0.0
) -> StreamOutputs:
    """Ground truth as predictions in a world that is scaled, rotated and shifted."""
    turn = torch.eye(3) if turn is None else turn
    pose = invert_pose(truth.cam_from_world)
    pose = torch.cat([turn @ pose[..., :3], scale * (turn @ pose[..., 3:]) + shift], -1)
    cameras = Cameras(invert_pose(pose), truth.intrinsics.expand(len(pose), 3, 3))
    frames = torch.arange(0, len(pose), long_streams.FRAME_STRIDE)
    depth = truth.depth[frames].float() * scale
    count = torch.arange(len(pose)).float()
    encoding = pose_enc_from_cameras(cameras, tuple(depth.shape[-2:]))
    return StreamOutputs(encoding, frames, depth, count, 100 * count)


ERRORS = [
    "local",
    "excess spread",
    "AbsRel",
    "AbsRel, last",
    "AbsRel, each",
    "drift",
    "ATE",
    "RPE t 1",
    "RPE r 10",
    "accuracy",
    "completeness",
]


def test_ground_truth_has_no_error_in_any_world(truth):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    for outputs in (biased(truth), biased(truth, 7.0, turn * torch.linalg.det(turn), 3.0)):
        numbers = score(outputs, truth)
        assert all(numbers[name] < 2e-3 for name in ERRORS), numbers
        assert numbers["δ<1.25"] == 1
        assert numbers["tokens"] == 39 and numbers["bytes"] == 3900


def test_one_depth_and_a_still_camera_have_the_errors_that_can_be_told_beforehand(truth):
    numbers = score(still_camera(truth), truth)
    assert numbers["ATE"] == pytest.approx(1)
    depth = truth.depth[:: long_streams.FRAME_STRIDE, ::SPACING, ::SPACING].float()
    assert numbers["AbsRel"] == pytest.approx(((depth.median() - depth).abs() / depth).mean().item(), rel=1e-3)
    assert numbers["RPE t 10"] > 0.1 and numbers["accuracy"] > 0.05


def test_a_unit_that_wanders_is_drift_and_not_shape(truth):
    outputs = biased(truth)
    growing = torch.linspace(0, 1, len(outputs.frames)).exp()[:, None, None]
    numbers = score(StreamOutputs(**{**vars(outputs), "depth": outputs.depth * growing}), truth)
    assert numbers["AbsRel, each"] < 2e-3 < 0.1 < numbers["AbsRel"]
    assert numbers["drift"] == pytest.approx(growing.log().std(correction=0).item(), rel=1e-3)
    assert numbers["AbsRel, last"] == numbers["AbsRel"]  # shorter than what is last


def test_scoring_the_first_frames_is_scoring_a_stream_that_ended_there(truth):
    model = tiny(dtype=torch.float32, heads=("camera", "depth"))
    short, whole = (stream(model, truth.images[None, :n], SlidingWindow(1, 2))[0] for n in (23, 40))
    first = score(whole.first(23), truth.first(23))
    assert first == pytest.approx(score(short, truth.first(23)), rel=1e-3)
    assert first != pytest.approx(score(whole, truth), rel=1e-3)
    assert disagreement(short, whole) < 1e-3


@pytest.mark.parametrize("policy", [SlidingWindow(1, 2), SelfSelective(2, 1, anchors=0)], ids=str)
def test_a_stream_is_what_a_session_says_however_many_go_together_and_is_kept(truth, policy, tmp_path):
    model = tiny(dtype=torch.float32, heads=("camera", "depth"))
    images = torch.stack([truth.images[:12], truth.images[12:24]])
    outputs = stream(model, images, policy)[1]
    session = StreamSession(model, policy=policy)
    alone = [session.push(image.float() / 255) for image in images[1]]
    torch.testing.assert_close(outputs.pose_enc, torch.cat([p.pose_enc[0] for p in alone]), rtol=1e-4, atol=1e-4)
    depth = torch.cat([alone[t].depth[0, ..., 0] for t in outputs.frames])
    torch.testing.assert_close(outputs.depth.float(), depth, rtol=2e-3, atol=1e-3)
    assert outputs.num_tokens[-1] == sum(session.memory.num_tokens) / 4
    assert outputs.num_bytes[-1] == session.memory.num_bytes
    save(outputs, tmp_path / "outputs.npz")
    loaded = load(StreamOutputs, tmp_path / "outputs.npz")
    assert all(torch.equal(value, vars(outputs)[name]) for name, value in vars(loaded).items())


def test_an_image_of_the_ground_truth_beside_itself(truth, tmp_path):
    draw_streams(truth, {"itself": biased(truth, 3.0)}, tmp_path / "streams.png")
    drawn = np.asarray(Image.open(tmp_path / "streams.png").convert("RGB")).astype(int)
    above = drawn[drawn.shape[0] // 10 : drawn.shape[0] * 2 // 5]  # without the titles
    halves = [half[(half < 250).any(-1)] for half in np.split(above, [above.shape[1] // 2], 1)]
    assert len(halves[0]) > 1000
    assert abs(len(halves[0]) / len(halves[1]) - 1) < 0.1
    assert np.abs(halves[0].mean(0) - halves[1].mean(0)).max() < 10
