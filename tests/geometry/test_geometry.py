"""Rotations, cameras and point maps."""

import math

import pytest
import torch

from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc, compose_poses, invert_pose, pose_enc_from_cameras
from streamvggt.geometry.pointmap import pixel_grid, project, unproject
from streamvggt.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix

HALF = math.sqrt(0.5)


def random_quaternions(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    q = q / q.norm(dim=-1, keepdim=True)
    return torch.where(q[:, 3:] < 0, -q, q)


def some_cameras(size=(28, 42)) -> Cameras:
    generator = torch.Generator().manual_seed(1)
    translation = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    fov = 0.5 + torch.rand(5, 2, generator=generator, dtype=torch.float64)
    return cameras_from_pose_enc(torch.cat([translation, random_quaternions(5), fov], -1), size)


def test_quaternions_by_hand():
    """A quarter turn about z takes x to y."""
    matrix = matrix_from_quaternion(torch.tensor([0, 0, HALF, HALF]))
    torch.testing.assert_close(matrix @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))


def test_quaternions_and_matrices_are_inverse():
    q = random_quaternions(500)
    matrix = matrix_from_quaternion(q)
    torch.testing.assert_close(quaternion_from_matrix(matrix), q, rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3, dtype=q.dtype).expand_as(matrix), rtol=0, atol=1e-12)
    assert torch.linalg.det(matrix).min() > 0.999


def test_length_and_sign_of_a_quaternion_do_not_matter():
    q = random_quaternions(50)
    for factor in (-1, 7.5, 1e-3):
        torch.testing.assert_close(matrix_from_quaternion(q * factor), matrix_from_quaternion(q))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_are_well_conditioned(axis):
    q = torch.zeros(4, dtype=torch.float64)
    q[axis], q[3] = 1, 1e-9
    matrix = matrix_from_quaternion(q)
    torch.testing.assert_close(matrix_from_quaternion(quaternion_from_matrix(matrix)), matrix, rtol=0, atol=1e-15)


def test_camera_of_an_encoding_by_hand():
    encoding = torch.tensor([1.0, 2, 3, 0, 0, 0, 1, math.pi / 2, math.pi / 3])
    cameras = cameras_from_pose_enc(encoding, (100, 200))
    fx = 100 / math.tan(math.pi / 6)
    torch.testing.assert_close(cameras.intrinsics, torch.tensor([[fx, 0, 100], [0, 50, 50], [0, 0, 1]]))
    torch.testing.assert_close(cameras.cam_from_world[:, 3], torch.tensor([1.0, 2, 3]))


def test_encoding_and_cameras_are_inverse():
    cameras = some_cameras()
    again = cameras_from_pose_enc(pose_enc_from_cameras(cameras, (28, 42)), (28, 42))
    torch.testing.assert_close(again.cam_from_world, cameras.cam_from_world)
    torch.testing.assert_close(again.intrinsics, cameras.intrinsics)


def test_a_field_of_view_of_zero_still_gives_a_finite_camera():
    assert cameras_from_pose_enc(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 0, 0]), (28, 42)).intrinsics.isfinite().all()


def test_half_precision_encodings_are_computed_in_float32():
    assert cameras_from_pose_enc(torch.ones(9, dtype=torch.bfloat16), (14, 14)).intrinsics.dtype == torch.float32


def test_a_pose_and_its_inverse_cancel():
    pose = some_cameras().cam_from_world
    inverse = invert_pose(pose)
    identity = torch.eye(4, dtype=pose.dtype)[:3].expand_as(pose)
    torch.testing.assert_close(compose_poses(pose, inverse), identity)
    torch.testing.assert_close(compose_poses(inverse, pose), identity)


def test_composed_poses_are_done_one_after_the_other():
    a, b = some_cameras().cam_from_world[0], some_cameras().cam_from_world[1]
    point = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    one_by_one = b[:, :3] @ (a[:, :3] @ point + a[:, 3]) + b[:, 3]
    both = compose_poses(b, a)
    torch.testing.assert_close(both[:, :3] @ point + both[:, 3], one_by_one)


def test_projection_undoes_unprojection():
    cameras = some_cameras()
    depth = 1 + torch.rand(5, 28, 42, dtype=torch.float64)
    points = unproject(depth, cameras)
    pixels, distance = project(points.flatten(1, 2), cameras)
    torch.testing.assert_close(pixels, pixel_grid(28, 42, depth).flatten(0, 1).expand(5, -1, -1), rtol=0, atol=1e-9)
    torch.testing.assert_close(distance, depth.flatten(1))


def test_the_ray_of_the_principal_point_is_the_optical_axis():
    intrinsics = torch.tensor([[20.0, 0, 21], [0, 20, 14], [0, 0, 1]])
    camera = Cameras(torch.eye(4)[:3], intrinsics)
    point = unproject(torch.full((28, 42), 3.0), camera)[14, 21]
    assert point.tolist() == [0, 0, 3]


def test_unproject_rejects_depth_and_cameras_of_different_shapes():
    with pytest.raises(ValueError, match=r"leading dimensions \(2,\).*\(5,\)"):
        unproject(torch.ones(2, 28, 42), some_cameras())
