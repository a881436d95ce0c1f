"""Views of the world agree; with any wrong convention they do not."""

from dataclasses import replace

import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.consistency import agreement
from streamvggt.data.view import View
from streamvggt.geometry.camera import invert_pose


@pytest.fixture(scope="module")
def pair():
    clip = world_clips(1, 9, 60, 80)[0]
    return clip[0], clip[8]


def with_pose(view: View, pose: torch.Tensor) -> View:
    return replace(view, cam_from_world=pose)


def transposed(view: View) -> View:
    pose = view.cam_from_world.clone()
    pose[:, :3] = pose[:, :3].T.clone()
    return with_pose(view, pose)


def opengl(view: View) -> View:
    return with_pose(view, torch.diag(torch.tensor([1.0, -1, -1])) @ view.cam_from_world)


def shifted(view: View, pixels: float) -> View:
    intrinsics = view.intrinsics.clone()
    intrinsics[:2, 2] += pixels
    return replace(view, intrinsics=intrinsics)


def ray_length(view: View) -> View:
    """Depth along the ray instead of the optical axis."""
    ones = replace(view, depth=torch.ones_like(view.depth), cam_from_world=torch.eye(4)[:3])
    return replace(view, depth=view.depth * ones.points().norm(dim=-1))


WRONG = {
    "pose transposed": transposed,
    "camera and world swapped": lambda view: with_pose(view, invert_pose(view.cam_from_world)),
    "OpenGL axes": opengl,
    "ray length for depth": ray_length,
    "millimeters for meters": lambda view: replace(view, depth=view.depth * 1000),
    "focal length of another size": lambda view: replace(
        view, intrinsics=view.intrinsics * torch.tensor([[1.1, 1, 1], [1, 1.1, 1], [1, 1, 1]])
    ),
}


def test_the_world_agrees_with_itself(pair):
    found = agreement(*pair)
    assert found.overlap > 0.5 and found.consistent_ratio > 0.9


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_convention_does_not(pair, kind):
    wrong = [WRONG[kind](view) for view in pair]
    assert agreement(*wrong).consistent_ratio < 0.75 * agreement(*pair).consistent_ratio, agreement(*wrong)


def test_nothing_valid_agrees_on_nothing(pair):
    empty = replace(pair[0], depth=pair[0].depth * 0, valid=torch.zeros_like(pair[0].valid))
    assert agreement(empty, pair[1]) == agreement(pair[0], empty)
    assert agreement(empty, pair[1]).overlap == 0


def lasered(view: View) -> View:
    """Depth at one pixel in sixteen."""
    where = view.valid & (torch.rand(view.valid.shape, generator=torch.Generator().manual_seed(0)) < 1 / 16)
    return replace(view, depth=view.depth * where, valid=where)


def test_sparse_depth_agrees_roughly(pair):
    found = agreement(*map(lasered, pair))
    assert found.overlap > 0.15 and found.consistent_ratio > 0.6, found


@pytest.mark.parametrize("kind", ["camera and world swapped", "OpenGL axes", "millimeters for meters"])
def test_sparse_depth_in_a_grossly_wrong_convention_does_not(pair, kind):
    wrong = [WRONG[kind](lasered(view)) for view in pair]
    assert agreement(*wrong).consistent_ratio < 0.8 * agreement(*map(lasered, pair)).consistent_ratio, agreement(*wrong)
