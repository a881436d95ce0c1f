"""Each part of the depth error reacts to its own cause."""

import sys

import torch

from experiments import depth_errors
from experiments.depth_errors import error_parts, near_edges

VALID = torch.ones(2, 32, 32, dtype=torch.bool)


def scene() -> torch.Tensor:
    """Two frames of a box 1 m away in front of a slanted wall."""
    depth = torch.linspace(3, 5, 32).expand(2, 32, 32).clone()
    depth[:, 8:20, 8:20] = 1
    return depth


def parts(depth, alone=None) -> dict[str, float]:
    truth = scene()
    alone = depth if alone is None else alone
    return {name: error[counted].mean().item() for name, error, counted in error_parts(depth, alone, truth, VALID)}


def test_a_perfect_prediction_has_no_error_but_averaged_depth_has():
    found = parts(3 * scene())
    for name, error in found.items():
        assert (error > 0.01) == name.startswith("ground truth"), name


def test_scales_that_differ_between_frames_are_an_error_of_the_sequence_only():
    depth = scene() * torch.tensor([1.0, 1.5])[:, None, None]
    found = parts(depth)
    assert found["one scale per sequence"] > 0.1
    assert found["one scale per frame"] < 1e-6


def test_frames_alone_count_in_their_own_row_only():
    noisy = scene() * (1 + 0.3 * torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0)))
    found = parts(scene(), alone=noisy)
    assert [name for name, error in found.items() if error > 1e-6 and "ground truth" not in name] == [
        "each frame alone, one scale per frame"
    ]


def test_an_error_of_whole_squares_is_corrected():
    depth = scene()
    depth[:, :16, :16] *= 2
    found = parts(depth)
    assert found["one scale per sequence"] > 0.1
    assert found["correct mean of each square of 16 pixels"] < 1e-6
    assert found["correct mean of each square of 8 pixels"] < 1e-6


def test_near_and_far_pixels_and_edges_are_told_apart():
    depth = scene()
    depth[depth == 1] = 2
    found = parts(depth)
    assert found["nearest quarter"] > 0.4 and found["farthest quarter"] < 1e-6
    edges = near_edges(scene().log())[0]
    assert edges[4, 4] and edges[23, 23] and not edges[3, 3] and not edges[14, 14] and not edges[25, 25]


def test_invalid_pixels_are_not_counted():
    depth, truth, valid = scene(), scene(), VALID.clone()
    valid[:, :16] = False
    depth[:, :16] = torch.nan
    truth[:, :16] = 0
    for name, error, counted in error_parts(depth, depth, truth, valid):
        assert error[counted].isfinite().all(), name
        if not name.startswith("ground truth"):
            assert error[counted].max() < 1e-6, name


def test_the_command_prints_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["depth_errors", "tiny", "--sequences", "1", "--frames", "2"])
    depth_errors.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 11
    assert lines[2].startswith("| one scale per sequence | 0.") and lines[2].endswith("| 100% |")
