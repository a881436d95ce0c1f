"""Observations subsample predictions; submaps align exactly, also where the points do not constrain the similarity."""

from dataclasses import replace

import pytest
import torch
from small_models import images, tiny

from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.pointmap import project, unproject
from streamvggt.geometry.similarity import Sim3
from streamvggt.stream.submaps.failure_detection import FailureDetector
from streamvggt.stream.submaps.observation import FrameObservation
from streamvggt.stream.submaps.submap_alignment import SubmapAlignment, align_submaps

WORLD = Sim3.exp(torch.tensor([1.0, -2, 0.5, 0.3, 1.2, -0.4, 0.7], dtype=torch.float64))


@pytest.fixture(scope="module")
def prediction():
    with torch.no_grad():
        return tiny()(images(1, 1))


@pytest.mark.parametrize("num_points", [20, 100, 5000])
def test_a_frame_is_some_of_the_pixels(prediction, num_points):
    frame = FrameObservation.from_prediction(prediction, num_points)
    assert min(num_points, 28 * 42) / 4 <= len(frame.depth) <= num_points
    assert num_points < 5000 or len(frame.depth) == 28 * 42
    cameras = prediction.cameras()
    every = unproject(
        prediction.depth[0, 0, ..., 0], type(cameras)(cameras.cam_from_world[0, 0], cameras.intrinsics[0, 0])
    )
    distance = torch.cdist(frame.points.double(), every.flatten(0, 1))
    nearest = distance.argmin(1)
    assert distance.min(1).values.max() < 1e-5
    torch.testing.assert_close(frame.depth.double(), prediction.depth.flatten()[nearest], rtol=1e-6, atol=0)
    torch.testing.assert_close(frame.conf.double(), prediction.depth_conf.flatten()[nearest], rtol=1e-6, atol=0)
    assert len(nearest.unique()) == len(nearest)


@pytest.mark.parametrize("head", ["depth", "points"])
def test_without_float64_a_frame_is_observed_to_rounding(prediction, head, monkeypatch):
    """MPS has no float64. The pose on the host has float64 anyway, because alignments compute with it."""
    if head == "points":
        prediction = replace(prediction, depth=None, depth_conf=None)
    prediction = prediction.to(torch.float32)
    exact = FrameObservation.from_prediction(prediction, 100)
    on_device = []
    monkeypatch.setattr("streamvggt.stream.submaps.observation.widest_float", lambda device: torch.float32)
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: on_device.append(self.dtype) or cpu(self))
    frame = FrameObservation.from_prediction(prediction, 100)
    assert on_device == [torch.float32] and frame.cam_from_world.dtype == torch.float64
    for name in ("points", "depth", "conf", "cam_from_world"):
        torch.testing.assert_close(getattr(frame, name), getattr(exact, name), rtol=1e-4, atol=1e-5)


def test_without_depth_the_point_head_is_asked(prediction):
    frame = FrameObservation.from_prediction(replace(prediction, depth=None, depth_conf=None), 5000)
    torch.testing.assert_close(frame.points.double(), prediction.points[0, 0].flatten(0, 1), rtol=1e-6, atol=1e-6)
    cameras = prediction.cameras()
    _, depth = project(
        prediction.points[0, 0].flatten(0, 1), type(cameras)(cameras.cam_from_world[0, 0], cameras.intrinsics[0, 0])
    )
    torch.testing.assert_close(frame.depth.double(), depth, rtol=1e-5, atol=1e-6)
    nothing = FrameObservation.from_prediction(replace(prediction, depth=None, points=None), 100)
    assert len(nothing.depth) == 0 and nothing.is_finite and nothing.median_depth is None


def observations(count: int = 3, points: torch.Tensor | None = None) -> list[FrameObservation]:
    generator = torch.Generator().manual_seed(0)
    frames = []
    for number in range(count):
        seen = torch.rand(200, 3, generator=generator) * 4 + torch.tensor([-2.0, -2, 2]) if points is None else points
        pose = torch.eye(4, dtype=torch.float64)[:3].clone()
        pose[:, 3] = torch.tensor([0.1 * number, 0, -0.2 * number])
        frames.append(FrameObservation(seen, seen[:, 2] - 0.2 * number, torch.full((len(seen),), 5.0), pose))
    return frames


def elsewhere(frames: list[FrameObservation], world: Sim3 = WORLD) -> list[FrameObservation]:
    return [
        FrameObservation(
            world.apply(frame.points.double()).float(),
            frame.depth * world.scale.float(),
            frame.conf,
            world.transform_poses(frame.cam_from_world),
        )
        for frame in frames
    ]


def off(alignment: SubmapAlignment) -> float:
    return (alignment.old_from_new.inverse() @ WORLD).log().norm().item()


def test_submaps_of_the_same_frames_are_aligned_exactly():
    alignment = align_submaps(observations(), elsewhere(observations()))
    assert off(alignment) < 1e-5 and alignment.method == "points"
    assert alignment.inlier_ratio == 1 and alignment.residual < 1e-5 and alignment.rotation_error_deg < 1e-3
    assert alignment.scale_spread == pytest.approx(1, abs=1e-5)
    assert FailureDetector().check_alignment(alignment) is None


@pytest.mark.parametrize(
    "points",
    [
        torch.linspace(1, 5, 50)[:, None] * torch.tensor([[0.2, 0.1, 1]]),  # on a line: turns about it are open
        torch.tensor([[0.0, 0, 2]]).repeat(50, 1),  # one place
        torch.zeros(0, 3),
        torch.full((50, 3), torch.nan),
        torch.rand(3, 3) + 1,  # too few
    ],
    ids=["line", "place", "none", "not numbers", "few"],
)
def test_where_points_do_not_say_enough_the_last_camera_does(points):
    frames = observations(points=points)
    alignment = align_submaps(frames, elsewhere(frames))
    assert alignment.method == "pose" and off(alignment) < 1e-4
    assert alignment.inlier_ratio is alignment.residual is None
    assert "points" in FailureDetector().check_alignment(alignment)
    moved = alignment.old_from_new.transform_poses(frames[-1].cam_from_world)
    torch.testing.assert_close(moved, elsewhere(frames)[-1].cam_from_world, rtol=0, atol=1e-5)


def test_a_single_common_frame_without_depth_keeps_the_scale():
    frames = observations(1, torch.zeros(0, 3))
    alignment = align_submaps(frames, elsewhere(frames))
    assert alignment.old_from_new.scale == 1
    center = alignment.old_from_new.apply(frames[0].center[None])[0]
    torch.testing.assert_close(center, invert_pose(elsewhere(frames)[0].cam_from_world)[:, 3])


def test_a_scale_that_drifts_within_the_overlap_is_noticed():
    new, old = observations(), elsewhere(observations())
    for number in range(3):
        grown = 3.0**number
        new[number] = replace(new[number], depth=new[number].depth * grown)
    assert align_submaps(new, old).scale_spread == pytest.approx(9, rel=1e-4)


def test_failed_alignments_have_a_reason():
    good = align_submaps(observations(), elsewhere(observations()))
    wrong = {
        "points agree": replace(good, inlier_ratio=0.1),
        "differ by 50": replace(good, residual=0.5),
        "cameras differ": replace(good, rotation_error_deg=50.0),
        "drifts": replace(good, scale_spread=3.0),
        "jumps": replace(good, old_from_new=replace(WORLD, scale=torch.tensor(50.0, dtype=torch.float64))),
    }
    for words, alignment in wrong.items():
        assert words in FailureDetector().check_alignment(alignment)
