"""Lines of trajectories: world-from-camera, the quaternion with the scalar last."""

import numpy as np
import torch

from streamvggt.export.tum import quaternion, tum_line
from streamvggt.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix


def test_the_quaternion_of_one_rotation_is_that_of_many():
    """Random rotations, and half turns, where the scalar is zero."""
    random = torch.Generator().manual_seed(0)
    quaternions = torch.cat([torch.randn(50, 4, generator=random).double(), torch.eye(4).double()])
    rotations = matrix_from_quaternion(quaternions)
    ours = np.array([quaternion(rotation) for rotation in rotations.numpy()])
    np.testing.assert_allclose(ours, quaternion_from_matrix(rotations).numpy(), rtol=0, atol=1e-15)


def test_a_line_has_the_camera_center_and_the_inverse_rotation():
    """A camera at (1, 2, 3) that is turned by 90° around the vertical axis."""
    world_from_cam = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    pose = np.concatenate([world_from_cam.T, -world_from_cam.T @ [[1.0], [2], [3]]], 1)
    numbers = [float(word) for word in tum_line(0.5, pose).split()]
    np.testing.assert_allclose(numbers, [0.5, 1, 2, 3, 0, np.sqrt(0.5), 0, np.sqrt(0.5)], rtol=0, atol=1e-9)
