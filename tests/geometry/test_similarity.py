"""Similarities against the matrices that they are, and their logarithms against scipy's matrix exponential."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from streamvggt.geometry.camera import Cameras, invert_pose
from streamvggt.geometry.pointmap import project
from streamvggt.geometry.similarity import Sim3, skew_matrix, stack


def some_tangents(count: int = 20) -> torch.Tensor:
    """Shifts, turns up to 2.9 radians and scales between 0.3 and 3."""
    generator = torch.Generator().manual_seed(0)
    shift, turn = torch.randn(2, count, 3, dtype=torch.float64, generator=generator)
    angle = torch.linspace(0.01, 2.9, count, dtype=torch.float64)[:, None]
    growth = torch.linspace(-1.2, 1.1, count, dtype=torch.float64)[:, None]
    return torch.cat([3 * shift, turn / turn.norm(dim=-1, keepdim=True) * angle, growth], -1)


def matrix(similarity: Sim3) -> np.ndarray:
    """Homogeneous, of one similarity. (4, 4)"""
    upper = torch.cat([similarity.scale * similarity.rotation, similarity.translation[:, None]], -1)
    return np.vstack([upper.numpy(), [0, 0, 0, 1]])


def test_exp_is_the_exponential_of_the_matrix():
    for tangent in some_tangents():
        motion = torch.zeros(4, 4, dtype=torch.float64)
        motion[:3, :3] = skew_matrix(tangent[3:6]) + tangent[6] * torch.eye(3, dtype=torch.float64)
        motion[:3, 3] = tangent[:3]
        np.testing.assert_allclose(matrix(Sim3.exp(tangent)), expm(motion.numpy()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-10, 0.0])
def test_log_undoes_exp_also_near_nothing(size):
    tangents = size * some_tangents()
    torch.testing.assert_close(Sim3.exp(tangents).log(), tangents, rtol=1e-9, atol=1e-14)


def test_a_turn_by_half_a_circle_has_a_logarithm():
    tangent = torch.tensor([1.0, 2, 3, 0, math.pi, 0, 0.2], dtype=torch.float64)
    again = Sim3.exp(Sim3.exp(tangent).log())
    np.testing.assert_allclose(matrix(again), matrix(Sim3.exp(tangent)), rtol=0, atol=1e-12)


def test_composing_multiplies_and_the_inverse_undoes():
    similarities = Sim3.exp(some_tangents())
    a, b = similarities[3], similarities[8]
    np.testing.assert_allclose(matrix(a @ b), matrix(a) @ matrix(b), rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix(a.inverse()), np.linalg.inv(matrix(a)), rtol=0, atol=1e-12)
    both = similarities @ similarities.inverse()
    torch.testing.assert_close(both.to_vector(), stack([Sim3.identity()] * 20).to_vector())
    torch.testing.assert_close(Sim3.from_vector(similarities.to_vector()).to_vector(), similarities.to_vector())


def test_moved_cameras_see_moved_points_at_the_same_pixels_scaled_as_far():
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(5, 7, 3, generator=generator, dtype=torch.float64)
    rotation = Sim3.exp(some_tangents()[4:9]).rotation
    pose = torch.cat([rotation, torch.tensor([0.1, 0.2, 9], dtype=torch.float64).expand(5, 3)[..., None]], -1)
    intrinsics = torch.tensor([[30.0, 0, 20], [0, 31, 15], [0, 0, 1]], dtype=torch.float64).expand(5, 3, 3)
    world = Sim3.exp(some_tangents()[12:17])
    pixels, depth = project(points, Cameras(pose, intrinsics))
    moved, moved_depth = project(world.apply(points), Cameras(world.transform_poses(pose), intrinsics))
    torch.testing.assert_close(moved, pixels)
    torch.testing.assert_close(moved_depth, world.scale[:, None] * depth)
    centers = invert_pose(world.transform_poses(pose))[..., 3]
    torch.testing.assert_close(centers, world.apply(invert_pose(pose)[:, None, :, 3])[:, 0])
