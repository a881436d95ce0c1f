"""The rotation in time, rows and columns, against its formula token by token."""

import math

import pytest
import torch

from streamvggt.layers.time_rotation import TimeRotation


def rotated_by_hand(x, position, widths):
    """One token, (D): pairs of neighbors, by time, row and column."""
    found, start = [], 0
    for p, width in zip(position, widths, strict=True):
        for j in range(width // 2):
            angle = p / 10000 ** (2 * j / width)
            a, b = x[start].item(), x[start + 1].item()
            found += [a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)]
            start += 2
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize(("head_width", "widths"), [(64, (20, 22, 22)), (128, (40, 44, 44)), (16, (8, 4, 4))])
def test_it_is_its_formula(head_width, widths):
    times, grid, special = torch.tensor([[0, 7], [300, 301]]), (2, 3), 6
    rotation = TimeRotation(times, grid, special, head_width, dtype=torch.float64)
    x = torch.randn(2, 3, 2 * 12, head_width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = rotation(x)
    places = [(i, i) for i in range(special)] + [(6 + y, 6 + x) for y in range(2) for x in range(3)]
    for batch in range(2):
        for frame in range(2):
            for token, place in enumerate(places):
                number = frame * 12 + token
                expected = rotated_by_hand(x[batch, 1, number], (times[batch, frame].item(), *place), widths)
                torch.testing.assert_close(found[batch, 1, number], expected, rtol=0, atol=1e-12)


def test_scores_depend_on_differences_of_time_only():
    q, k = torch.randn(2, 1, 1, 12, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def scores(of_q, of_k):
        at = [TimeRotation(torch.tensor([[time]]), (2, 3), 6, 64, dtype=torch.float64) for time in (of_q, of_k)]
        return at[0](q) @ at[1](k).mT

    torch.testing.assert_close(scores(9, 2), scores(107, 100), rtol=0, atol=1e-10)
    assert (scores(9, 2) - scores(9, 3)).abs().max() > 0.1


@pytest.mark.parametrize("head_width", [4, 7])
def test_head_widths_that_cannot_be_divided_are_rejected(head_width):
    with pytest.raises(ValueError, match="expected an even head width of 6 or more"):
        TimeRotation(torch.zeros(1, 1), (1, 1), 6, head_width)
