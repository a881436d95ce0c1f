"""Alignment where points are wrong, noisy, or of different worth."""

import pytest
import torch

from streamvggt.geometry.alignment import align_points, align_points_robust, weighted_median
from streamvggt.geometry.similarity import Sim3

TRUE = Sim3.exp(torch.tensor([1.0, -2, 0.5, 0.3, 1.2, -0.4, 0.7], dtype=torch.float64))


def cloud(count: int = 2000, noise: float = 0.0, outliers: float = 0.0, seed: int = 0):
    """Points, where `TRUE` brings them with noise, and which of them are in their place.

    The wrong ones are off together, as a moving thing is: all by the same shift and turned.
    """
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1, 2])
    target = TRUE.apply(points + noise * torch.randn(count, 3, generator=generator, dtype=torch.float64))
    wrong = torch.arange(count) < outliers * count
    elsewhere = Sim3.exp(torch.tensor([3.0, 1, 2, 0.5, 0.2, 0, 0.3], dtype=torch.float64))
    target[wrong] = (elsewhere @ TRUE).apply(points[wrong])
    return points, target, ~wrong


def distance(found: Sim3, true: Sim3 = TRUE) -> float:
    """Size of what is between two similarities."""
    return (found.inverse() @ true).log().norm().item()


def test_four_points_in_ten_may_be_wrong_together():
    source, target, right = cloud(noise=0.01, outliers=0.4)
    ones = torch.ones(len(source), dtype=torch.float64)
    found = align_points_robust(source, target, ones, 0.2 * ones)
    assert distance(found.similarity) < 2e-3 < 0.1 < distance(align_points(source, target))
    assert found.error[right].max() < 1 < found.error[~right].median()
    assert found.weight[right].mean() > 0.9 and found.weight[~right].mean() < 0.05


def test_noise_beyond_the_tolerance_is_no_reason_to_trust_a_few_points():
    source, target, _ = cloud(noise=0.3)
    ones = torch.ones(len(source), dtype=torch.float64)
    found = align_points_robust(source, target, ones, 0.01 * ones)
    assert distance(found.similarity) < 0.03
    assert (found.weight > 0.1).double().mean() > 0.9


def test_points_that_are_trusted_more_count_more():
    source, target, right = cloud(outliers=0.6)
    weight = torch.where(right, 1.0, 0.1).double()
    tolerance = torch.full_like(weight, 0.2)
    assert distance(align_points_robust(source, target, weight, tolerance).similarity) < 1e-4
    assert distance(align_points_robust(source, target, torch.ones_like(weight), tolerance).similarity) > 0.1


def test_a_point_far_away_may_be_further_off():
    """Errors count in units of each point's tolerance."""
    source, target, _ = cloud()
    ones = torch.ones(len(source), dtype=torch.float64)
    target[:900] += torch.tensor([0.5, 0, 0])
    strict = align_points_robust(source, target, ones, 0.1 * ones).similarity
    lenient = align_points_robust(source, target, ones, torch.where(torch.arange(2000) < 900, 0.001, 10.0).double())
    assert distance(strict) < 2e-3
    assert distance(lenient.similarity, Sim3.exp(torch.tensor([0.5, 0, 0, 0, 0, 0, 0]).double()) @ TRUE) < 1e-3


def test_a_chain_of_symmetric_alignments_does_not_shrink():
    source, _, _ = cloud(count=5000)
    shrunk = kept = 1.0
    for seed in range(100, 120):
        generator = torch.Generator().manual_seed(seed)
        one, other = (source + 0.4 * torch.randn(5000, 3, generator=generator, dtype=torch.float64) for _ in "ab")
        shrunk *= align_points(one, other).scale.item()
        kept *= align_points(one, other, symmetric=True).scale.item()
    assert abs(kept - 1) < 0.05 and shrunk < 0.7


def test_symmetric_alignment_there_and_back_cancel():
    source, target, _ = cloud(noise=0.5)
    there, back = (align_points(*pair, symmetric=True) for pair in ((source, target), (target, source)))
    assert distance(there @ back, Sim3.identity()) < 1e-9


@pytest.mark.parametrize("symmetric", [False, True])
def test_one_place_gives_scale_one(symmetric):
    source = torch.zeros(5, 3, dtype=torch.float64)
    found = align_points(source, source + torch.tensor([1.0, 2, 3]), symmetric=symmetric)
    assert found.scale == 1 and found.translation.tolist() == pytest.approx([1, 2, 3])


def test_the_median_is_weighted():
    values = torch.tensor([5.0, 1, 3, 9])
    assert weighted_median(values, torch.tensor([1.0, 1, 1, 0])) == 3
    assert weighted_median(values, torch.tensor([1.0, 1, 1, 9])) == 9
    assert weighted_median(values, torch.tensor([0.0, 1, 0, 0])) == 1


def test_mirrored_points_give_a_proper_rotation():
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotation = align_points(points, points * torch.tensor([-1.0, 1, 1])).rotation
    assert torch.linalg.det(rotation).item() == pytest.approx(1)
