"""Depth metrics: the published numbers in every alignment, and numbers of a pencil."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from streamvggt.evaluation import depth_alignment, depth_sets
from streamvggt.evaluation.depth_alignment import ALIGNMENTS
from streamvggt.evaluation.depth_metrics import METRICS, DepthOptions, error_map, score_depth, weighted_mean
from streamvggt.evaluation.depth_protocol import load_pair

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "metrics.npz")
CASES = json.loads(str(GOLDENS["depth_cases"]))
PUBLISHED = {
    "metric_scale": "metric",
    "align_with_lstsq": "lstsq",
    "align_with_lad": "lad",
    "align_with_lad2": "scale&shift",
    "align_with_scale": "scale",
}
TOLERANCE = {"scale&shift": 1e-4, "lad": 1e-2}


def scene(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Estimate and truth of a case."""
    estimated, true = GOLDENS["depth_pred_f32"], GOLDENS["depth_gt_f32"]
    if name.startswith(("mono_bonn", "mono_kitti", "video_bonn", "video_kitti")):
        true = GOLDENS["depth_gt_f64"]
    if name.startswith("mono"):
        frame = int(name[-1])
        return estimated[frame], true[frame]
    if name == "scale_pred_x100":
        return (estimated * 100).astype(np.float32), true
    if name == "scale_tiny_gt_clamped":
        return estimated, (true * 1e-5).astype(np.float32)
    if name == "lad2_exact_pred_stops_early":
        return (true * 0.5).astype(np.float32), true
    if name.startswith("disp"):
        return GOLDENS["depth_pred_disp_f32"], true
    if name == "all_invalid":
        return estimated[0], np.full_like(true[0], -1)
    if name == "perfect":
        return true, true
    return estimated, true


def score(case: dict):
    options = dict(case["kwargs"])
    align = next((name for key, name in PUBLISHED.items() if options.pop(key, False)), "median")
    alignment = ALIGNMENTS[align]
    rate, steps = options.pop("lr", 1e-4), options.pop("max_iters", 1000)
    if align == "scale&shift":
        alignment = partial(alignment, learning_rate=rate, num_steps=steps)
    rules = DepthOptions(
        max_depth=options.pop("max_depth", 80),
        clip_prediction=(options.pop("pre_clip_min", None), options.pop("pre_clip_max", None)),
        clip_aligned=(options.pop("post_clip_min", None), options.pop("post_clip_max", None)),
        is_disparity=options.pop("disp_input", False),
    )
    mask = GOLDENS[options.pop("custom_mask")] if "custom_mask" in options else None
    assert not options
    estimated, true = map(torch.from_numpy, scene(case["name"]))
    mask = None if mask is None else torch.from_numpy(mask)
    return align, score_depth(estimated, true, alignment, rules, mask), true, rules


@pytest.mark.parametrize("row", range(len(CASES)), ids=[case["name"] for case in CASES])
def test_published_numbers(row):
    align, result, _, _ = score(CASES[row])
    tolerance = TOLERANCE.get(align, 1e-5)
    ours = [*result.numbers.values(), result.num_valid]
    np.testing.assert_allclose(ours, GOLDENS["depth_results"][row], rtol=tolerance, atol=1e-12)
    affine = GOLDENS["depth_scale_shift"][row]
    if np.isfinite(affine).all():
        np.testing.assert_allclose([result.scale, result.shift], affine, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("name", ["mono_sintel_frame0", "video_bonn_scale"])
def test_published_maps(name):
    _, result, true, rules = score(next(case for case in CASES if case["name"] == name))
    aligned = result.align(torch.from_numpy(scene(name)[0]))
    errors = error_map(aligned, true, rules)
    np.testing.assert_allclose(errors.flatten(0, -2), GOLDENS[f"depth_map_error__{name}"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(aligned.flatten(0, -2), GOLDENS[f"depth_map_pred__{name}"], rtol=1e-5)


def test_averages_over_pixels_as_published():
    order = json.loads(str(GOLDENS["depth_mono_avg_order"]))
    for dataset, wanted in zip(order, GOLDENS["depth_mono_avg"], strict=True):
        results = [score(case)[1] for case in CASES if case["name"].startswith(f"mono_{dataset}")]
        mean = weighted_mean([(result.numbers, result.num_valid) for result in results])
        np.testing.assert_allclose(list(mean.values()), wanted, rtol=1e-5, atol=1e-12)


def by_hand(estimated: list[float], true: list[float], align: str = "metric", **rules):
    estimated, true = (torch.tensor(values, dtype=torch.float64) for values in (estimated, true))
    return score_depth(estimated, true, ALIGNMENTS[align], DepthOptions(**rules))


def test_numbers_by_hand():
    numbers = by_hand([1.0, 4.0, 4.4, 99.0], [1.0, 2.0, 4.0, 0.0]).numbers
    assert numbers["Abs Rel"] == pytest.approx((0 + 1 + 0.1) / 3)
    assert numbers["Sq Rel"] == pytest.approx((0 + 2 + 0.04) / 3)
    assert numbers["RMSE"] == pytest.approx(((4 + 0.16) / 3) ** 0.5)
    assert numbers["Log RMSE"] == pytest.approx(((np.log(2) ** 2 + np.log(1.1) ** 2) / 3) ** 0.5)
    assert [numbers[name] for name in METRICS[4:]] == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3])


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_ground_truth_is_perfect(align):
    true = torch.rand(2, 20, 30, dtype=torch.float64) * 9 + 1
    numbers = score_depth(true, true, ALIGNMENTS[align], DepthOptions(70)).numbers
    assert numbers["Abs Rel"] < 1e-6 and numbers["Log RMSE"] < 1e-6
    assert numbers["δ < 1.25"] == 1


@pytest.mark.parametrize("align", [name for name in ALIGNMENTS if name not in ("metric", "scale&shift")])
def test_a_factor_is_taken_back(align):
    true = torch.rand(2, 20, 30, dtype=torch.float64) * 9 + 1
    result = score_depth(true / 4, true, ALIGNMENTS[align])
    assert result.numbers["Abs Rel"] < 1e-5
    assert result.scale == pytest.approx(4, rel=1e-4)
    assert by_hand([0.25, 1.0], [1.0, 4.0]).numbers["Abs Rel"] == 0.75


def test_a_shift_is_taken_back_by_those_that_can():
    true = torch.rand(2, 20, 30, dtype=torch.float64) * 9 + 1
    for align in ("lstsq", "lad", "scale&shift_exact"):
        result = score_depth(true / 4 - 1, true, ALIGNMENTS[align])
        assert result.numbers["Abs Rel"] < 1e-5, align
        assert (result.scale, result.shift) == pytest.approx((4, 4), rel=1e-3), align
    # The published one moves by lr · steps = 0.1 at most, from the ratio of the medians.
    start = (true.median() / (true / 4 - 1).median()).item()
    stuck = score_depth(true / 4 - 1, true, ALIGNMENTS["scale&shift"])
    assert abs(stuck.scale - start) < 0.11 and abs(stuck.shift) < 0.11


def test_the_exact_alignments_are_where_no_step_helps():
    estimated, true = (torch.from_numpy(GOLDENS[name]).double() for name in ("depth_pred_f32", "depth_gt_f32"))
    valid = (true > 0) & (true < 70)
    estimated, true = estimated[valid], true[valid]

    def error(scale, shift):
        return (scale * estimated + shift - true).abs().sum().item()

    for align, steps in {"scale": ((1, 0),), "scale&shift": ((1, 0), (0, 1), (1, 1), (1, -1))}.items():
        scale, shift = (value.item() for value in ALIGNMENTS[f"{align}_exact"](estimated, true))
        best = error(scale, shift)
        assert best <= error(*(value.item() for value in ALIGNMENTS[align](estimated, true)))
        for sign in (1e-4, -1e-4):
            for ds, dt in steps:
                assert best <= error(scale + sign * ds, shift + sign * dt) + 1e-9


def test_depth_below_zero_counts_as_it_is_but_not_in_ratios():
    numbers = by_hand([-1.0], [1.0]).numbers
    assert numbers["Abs Rel"] == 2 and numbers["δ < 1.25"] == 0
    assert numbers["Log RMSE"] == pytest.approx(-np.log(1e-5))


def test_nothing_valid_weighs_nothing():
    empty = by_hand([1.0], [0.0])
    assert empty.num_valid == 0 and set(empty.numbers.values()) == {0.0}
    good = by_hand([1.0, 3.0], [1.0, 2.0])
    assert weighted_mean([(empty.numbers, 0), (good.numbers, 2)])["Abs Rel"] == 0.25
    with pytest.raises(ValueError, match="no pixel"):
        weighted_mean([(empty.numbers, 0)])


def test_many_values_are_summed_and_searched_in_parts(monkeypatch):
    """A video of 30 million pixels gives what it would at once."""
    random = torch.Generator().manual_seed(0)
    true = torch.rand(5000, generator=random, dtype=torch.float64) * 9 + 1
    estimated = 0.3 * true * (1 + 0.2 * torch.randn(5000, generator=random, dtype=torch.float64)) + 0.1
    estimated[:2000:3] = estimated[0]  # many that are equal
    at_once = {name: score_depth(estimated, true, align) for name, align in ALIGNMENTS.items()}
    monkeypatch.setattr(depth_alignment, "CHUNK", 600)
    for name, align in ALIGNMENTS.items():
        in_parts = score_depth(estimated, true, align)
        assert in_parts.numbers == pytest.approx(at_once[name].numbers, rel=1e-3 if name == "scale" else 1e-6), name


@pytest.mark.parametrize(
    ("name", "num_valid", "error"),
    [
        ("sintel", 2, (70 - 50) / 50),  # depth below 70 m, aligned predictions clipped to 70 m
        ("bonn", 2, (700 - 50) / 50),  # depth below 70 m
        ("kitti", 3, (700 - 50) / 50),
        ("nyu", 3, (700 - 50) / 50),
        ("scannet", 3, (700 - 50) / 50),
    ],
)
def test_ranges_of_depth_are_the_published_ones(name, num_valid, error):
    true, predicted = torch.tensor([[1.0, 50, 80, 0, -1]]), torch.tensor([[1.0, 700, 80, 5, 5]])
    score = score_depth(predicted, true, ALIGNMENTS["metric"], depth_sets.PUBLISHED[depth_sets.DEPTH_SETS[name]].rules)
    assert score.num_valid == num_valid
    assert score.numbers["Abs Rel"] == pytest.approx(error / num_valid)


def test_predictions_are_resized_with_cubic_interpolation(tmp_path):
    """A cubic kernel overshoots a step, a linear one does not."""
    step = np.repeat(np.float32([[1, 1, 1, 2, 2, 2]]), 6, 0)
    np.save(tmp_path / "step.npy", step)
    reader = SimpleNamespace(depth=lambda scene, frame: torch.ones(12, 12))
    resized, _ = load_pair(reader, "scene", "frame", tmp_path / "step.npy")
    assert resized.shape == (12, 12)
    assert resized.max() > 2.05 and resized.min() < 0.95
