"""The arithmetic of the losses, against goldens and by hand."""

import pytest
import torch

from streamvggt.losses.criterion import zero_loss
from streamvggt.losses.terms import (
    confidence_weighted_error,
    finite_differences,
    iteration_mean,
    least_squares_scale,
    mean_distance,
    normals,
    normals_valid,
    robust_error,
    sample_mean,
)


def numbers(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_huber(goldens, close):
    error = goldens["components/huber_in"]
    each = robust_error(error[..., None], torch.zeros_like(error)[..., None], "huber", 0.1)
    close(each, goldens["components/huber_none"])
    close(each.mean(), goldens["components/huber_mean"])


def test_robust_errors_by_hand(close):
    zero = numbers(0, 0)
    close(robust_error(numbers(3, -4), zero, "l1"), 3.5)
    close(robust_error(numbers(3, -4), zero, "l2"), 5)
    close(robust_error(numbers(0.1, 1), zero, "huber", 0.5), (0.01 / 1 + 0.75) / 2)
    with pytest.raises(ValueError, match="huber"):
        robust_error(zero, zero, "l3")


def test_normals(goldens, close):
    close(normals(goldens["components/normals_in"]).movedim(-4, 0), goldens["components/normals_out"])
    valid = normals_valid(goldens["components/normals_mask"]).movedim(-3, 0)
    assert torch.equal(valid, goldens["components/normals_valid"])


def test_normals_of_a_plane_are_its_normal(close):
    """Seen from the camera, all four normals of a wall z = 2 agree; only those with neighbors count."""
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    wall = torch.stack([x, y, torch.full_like(x, 2)], -1)
    valid = normals_valid(torch.ones(5, 6, dtype=torch.bool))
    assert valid.sum() == 4 * 3 * 4 + 2 * (2 * 3 + 2 * 4) + 4
    assert (normals(wall)[valid] == torch.tensor([0.0, 0.0, -1.0])).all()


def test_differences_by_hand():
    values = torch.tensor([[1.0, 3.0], [7.0, 8.0]])[..., None]
    valid = torch.tensor([[True, True], [True, False]])
    (along_x, pairs_x), (along_y, pairs_y) = finite_differences(values, valid)
    assert along_x.flatten().tolist() == [2, 1] and along_y.flatten().tolist() == [6, 5]
    assert pairs_x.flatten().tolist() == [True, False] and pairs_y.flatten().tolist() == [True, False]


def test_sample_mean_by_hand(close):
    values = numbers([1, 3, 100], [5, 7, 9], [2, 2, 2])
    weights = numbers([1, 1, 0], [0, 0, 0], [0, 0, 1])
    close(sample_mean(values, weights), (2 + 2) / 2)
    close(sample_mean(values, weights, fewest=2), 2)
    close(sample_mean(values, numbers([3, 1, 0], [0, 0, 0], [0, 0, 0])), 1.5)
    assert sample_mean(values, weights * 0) == 0


def test_stage_mean_by_hand(close):
    close(iteration_mean([numbers(8), numbers(4), numbers(2)], 0.5), [(0.25 * 8 + 0.5 * 4 + 2) / 3])


def test_confidence_is_right_at_alpha_over_error():
    conf = torch.linspace(1, 10, 901, dtype=torch.float64)
    best = conf[confidence_weighted_error(torch.full_like(conf, 0.05), conf, alpha=0.2).argmin()]
    assert best.item() == pytest.approx(0.2 / 0.05, abs=0.01)


def test_scales_by_hand(close):
    values = torch.zeros(1, 2, 1, 2, 3, dtype=torch.float64)
    values[0, 0, 0, 0] = numbers(3, 4, 0)
    values[0, 1, 0, 0] = numbers(0, 0, 1)
    values[0, :, 0, 1] = 1e6
    valid = torch.tensor([[[[True, False]], [[True, False]]]])
    close(mean_distance(values, valid, (1, 2, 3)).flatten(), [3])
    close(mean_distance(values, valid, (2, 3)).flatten(), [5, 1])
    close(least_squares_scale(values, 2.5 * values, valid, (1, 2, 3)).flatten(), [2.5])
    assert least_squares_scale(values, -values, valid, (1, 2, 3)) > 0
    assert not least_squares_scale(values.clone().requires_grad_(), values, valid, (1, 2, 3)).requires_grad


def test_the_zero_of_an_output_with_nan_has_no_gradient():
    output = torch.full((2, 3), torch.nan, requires_grad=True)
    zero = zero_loss(output)
    zero.backward()
    assert zero == 0 and torch.equal(output.grad, torch.zeros(2, 3))
