"""Metrics on examples that one can check with a pencil."""

import math

import pytest
import torch

from streamvggt.evaluation.depth_metrics import absolute_relative_error, delta_accuracy, median_scale
from streamvggt.evaluation.pose_metrics import ate, auc, relative_pose_errors
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.rotation import matrix_from_quaternion


def poses(centers, degrees) -> torch.Tensor:
    """Camera-from-world poses at centers (S, 3), turned about y."""
    half = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)) / 2
    zero = torch.zeros_like(half)
    rotation = matrix_from_quaternion(torch.stack([zero, half.sin(), zero, half.cos()], -1))
    centers = torch.tensor(centers, dtype=torch.float64)
    return torch.cat([rotation, -(rotation @ centers[..., None])], -1)


def test_relative_rotation_and_direction_by_hand():
    true = poses([[0, 0, 0], [1, 0, 0], [1, 0, 1]], [0.0, 0.0, 0.0])
    ours = poses([[0, 0, 0], [5, 0, 0], [5, 0, 5]], [0.0, 10.0, 0.0])
    rotation, translation = relative_pose_errors(ours, true)
    torch.testing.assert_close(rotation, torch.tensor([10.0, 0, 10], dtype=torch.float64), atol=1e-5, rtol=0)
    # Frame 1 is turned by 10°, and so is the direction in which it sees frame 2; frame 0 sees both where they were.
    torch.testing.assert_close(translation, torch.tensor([0, 0, 10.0], dtype=torch.float64), atol=1e-4, rtol=0)


def test_neither_scale_nor_world_nor_sign_of_the_direction_matters():
    true = poses([[0, 0, 0], [1, 0, 0], [1, 0, 1]], [0.0, 20.0, -10.0])
    mirrored = poses([[3, 0, 0], [1, 0, 0], [1, 0, -2]], [0.0, 20.0, -10.0])
    rotation, translation = relative_pose_errors(mirrored, true)
    assert rotation.max() < 1e-5
    assert translation.max() < 1e-4


def test_a_still_camera_has_no_direction():
    true = poses([[0, 0, 0], [1, 0, 0]], [0.0, 0.0])
    still = poses([[0, 0, 0], [0, 0, 0]], [0.0, 0.0])
    assert relative_pose_errors(still, true)[1].item() == pytest.approx(90)


def test_area_under_the_curve_by_hand():
    assert auc(torch.zeros(5), 30) == 1
    assert auc(torch.full((5,), 90.0), 30) == 0
    # Of thresholds 1, 2, 3, 4: an error of 2.5 is below 3 and 4.
    assert auc(torch.tensor([2.5]), 4) == pytest.approx(0.5)
    assert auc(torch.tensor([4.0]), 4) == pytest.approx(0.25)  # the last bin is closed
    assert auc(torch.tensor([2.5, 90.0]), 4) == pytest.approx(0.25)


def test_alignment_finds_the_similarity_and_never_a_reflection():
    torch.manual_seed(0)
    points = torch.randn(3, 50, 3, dtype=torch.float64)
    rotation = matrix_from_quaternion(torch.randn(3, 4, dtype=torch.float64))
    wanted = 2.5 * points @ rotation.mT + torch.tensor([1.0, -2, 3], dtype=torch.float64)
    found = align_points(points, wanted)
    torch.testing.assert_close(found.apply(points), wanted)
    torch.testing.assert_close(found.scale, torch.full((3,), 2.5, dtype=torch.float64))
    mirrored = align_points(points, points * torch.tensor([-1.0, 1, 1], dtype=torch.float64))
    assert (torch.linalg.det(mirrored.rotation) > 0.999).all()
    outlier = wanted.clone()
    outlier[:, 0] += 100
    weight = torch.ones(3, 50, dtype=torch.float64)
    weight[:, 0] = 0
    torch.testing.assert_close(align_points(points, outlier, weight).apply(points), wanted)


def test_trajectory_error_by_hand():
    square = [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]]
    true = poses(square, [0.0] * 4)
    moved = poses([[10 + 3 * z, 5, -3 * x] for x, _, z in square], [0.0] * 4)
    assert ate(moved, true) < 1e-7
    still = ate(poses([[0, 0, 0]] * 4, [0.0] * 4), true)
    assert still == pytest.approx(math.sqrt(0.5) / 3)  # all at the center of the square, of a path of length 3
    assert invert_pose(true)[2, :, 3].tolist() == [1, 0, 1]


def test_depth_metrics_by_hand():
    true = torch.tensor([1.0, 2.0, 4.0, 100.0])
    valid = torch.tensor([True, True, True, False])
    ours = torch.tensor([3.0, 6.0, 6.0, 0.0])
    scaled = median_scale(ours, true, valid)
    torch.testing.assert_close(scaled, torch.tensor([1.0, 2.0, 2.0, 0.0]))
    assert absolute_relative_error(scaled, true, valid) == pytest.approx(0.5 / 3)
    assert delta_accuracy(scaled, true, valid) == pytest.approx(2 / 3)
