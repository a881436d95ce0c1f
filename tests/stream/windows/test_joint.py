"""What windows keep of a frame, and how two of them are joined where points say little or nothing."""

from dataclasses import replace

import pytest
import torch
from networks import images, tiny

from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.pointmap import project, unproject
from streamvggt.geometry.similarity import Similarity
from streamvggt.stream.windows.health import Health
from streamvggt.stream.windows.joint import Joint, join
from streamvggt.stream.windows.sight import Sight

WORLD = Similarity.exp(torch.tensor([1.0, -2, 0.5, 0.3, 1.2, -0.4, 0.7], dtype=torch.float64))


@pytest.fixture(scope="module")
def prediction():
    with torch.no_grad():
        return tiny()(images(1, 1))


@pytest.mark.parametrize("num_points", [20, 100, 5000])
def test_a_sight_is_some_of_the_pixels(prediction, num_points):
    sight = Sight.of(prediction, num_points)
    assert min(num_points, 28 * 42) / 4 <= len(sight.depth) <= num_points
    assert num_points < 5000 or len(sight.depth) == 28 * 42
    cameras = prediction.cameras()
    every = unproject(
        prediction.depth[0, 0, ..., 0], type(cameras)(cameras.cam_from_world[0, 0], cameras.intrinsics[0, 0])
    )
    distance = torch.cdist(sight.points.double(), every.flatten(0, 1))
    nearest = distance.argmin(1)
    assert distance.min(1).values.max() < 1e-5
    torch.testing.assert_close(sight.depth.double(), prediction.depth.flatten()[nearest], rtol=1e-6, atol=0)
    torch.testing.assert_close(sight.conf.double(), prediction.depth_conf.flatten()[nearest], rtol=1e-6, atol=0)
    assert len(nearest.unique()) == len(nearest)


def test_without_depth_the_point_head_is_asked(prediction):
    sight = Sight.of(replace(prediction, depth=None, depth_conf=None), 5000)
    torch.testing.assert_close(sight.points.double(), prediction.points[0, 0].flatten(0, 1), rtol=1e-6, atol=1e-6)
    cameras = prediction.cameras()
    _, depth = project(
        prediction.points[0, 0].flatten(0, 1), type(cameras)(cameras.cam_from_world[0, 0], cameras.intrinsics[0, 0])
    )
    torch.testing.assert_close(sight.depth.double(), depth, rtol=1e-5, atol=1e-6)
    nothing = Sight.of(replace(prediction, depth=None, points=None), 100)
    assert len(nothing.depth) == 0 and nothing.is_finite and nothing.typical_depth is None


def some_sights(count: int = 3, points: torch.Tensor | None = None) -> list[Sight]:
    generator = torch.Generator().manual_seed(0)
    sights = []
    for number in range(count):
        seen = torch.rand(200, 3, generator=generator) * 4 + torch.tensor([-2.0, -2, 2]) if points is None else points
        pose = torch.eye(4, dtype=torch.float64)[:3].clone()
        pose[:, 3] = torch.tensor([0.1 * number, 0, -0.2 * number])
        sights.append(Sight(seen, seen[:, 2] - 0.2 * number, torch.full((len(seen),), 5.0), pose))
    return sights


def elsewhere(sights: list[Sight], world: Similarity = WORLD) -> list[Sight]:
    return [
        Sight(
            world.apply(sight.points.double()).float(),
            sight.depth * world.scale.float(),
            sight.conf,
            world.move_poses(sight.cam_from_world),
        )
        for sight in sights
    ]


def off(joint: Joint) -> float:
    return (joint.old_from_new.inverse() @ WORLD).log().norm().item()


def test_windows_of_the_same_frames_are_joined_exactly():
    joint = join(some_sights(), elsewhere(some_sights()))
    assert off(joint) < 1e-5 and joint.by == "points"
    assert joint.inlier_share == 1 and joint.residual < 1e-5 and joint.turn < 1e-3
    assert joint.scale_spread == pytest.approx(1, abs=1e-5)
    assert Health().of_joint(joint) is None


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
    sights = some_sights(points=points)
    joint = join(sights, elsewhere(sights))
    assert joint.by == "pose" and off(joint) < 1e-4
    assert joint.inlier_share is joint.residual is None and "points" in Health().of_joint(joint)
    moved = joint.old_from_new.move_poses(sights[-1].cam_from_world)
    torch.testing.assert_close(moved, elsewhere(sights)[-1].cam_from_world, rtol=0, atol=1e-5)


def test_a_single_common_frame_without_depth_keeps_the_scale():
    sights = some_sights(1, torch.zeros(0, 3))
    joint = join(sights, elsewhere(sights))
    assert joint.old_from_new.scale == 1
    centre = joint.old_from_new.apply(sights[0].centre[None])[0]
    torch.testing.assert_close(centre, invert_pose(elsewhere(sights)[0].cam_from_world)[:, 3])


def test_a_scale_that_drifts_within_the_overlap_is_noticed():
    new, old = some_sights(), elsewhere(some_sights())
    for number in range(3):
        grown = 3.0**number
        new[number] = replace(new[number], depth=new[number].depth * grown)
    assert join(new, old).scale_spread == pytest.approx(9, rel=1e-4)


def test_what_is_wrong_with_a_joint_is_said():
    good = join(some_sights(), elsewhere(some_sights()))
    wrong = {
        "points agree": replace(good, inlier_share=0.1),
        "apart": replace(good, residual=0.5),
        "turned": replace(good, turn=50.0),
        "drifts": replace(good, scale_spread=3.0),
        "jumps": replace(good, old_from_new=replace(WORLD, scale=torch.tensor(50.0, dtype=torch.float64))),
    }
    for words, joint in wrong.items():
        assert words in Health().of_joint(joint)
