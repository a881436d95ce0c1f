"""Reconstruction metrics: the published numbers, and clouds that one can check with a pencil."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from streamvggt.evaluation.point_clouds import estimate_normals, icp
from streamvggt.evaluation.recon_metrics import (
    ReconstructionScore,
    compare_clouds,
    completion_ratio,
    mean_line,
    mean_score,
    normalize_point_maps,
    scene_line,
)
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import invert_pose

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "metrics.npz")


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize(("case", "factor"), [("norm_", 1.0), ("norm_tiny_", 1e-6)])
def test_point_maps_are_normalized_as_published(case, factor):
    first = invert_pose(golden("norm_c2w")[0, :3])
    output = normalize_point_maps(golden("norm_gt_world"), golden("norm_pred") * factor, golden("norm_valid"), first)
    torch.testing.assert_close(output.true, golden("norm_out_gt"), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(output.estimated, golden(case + "out_pred"), rtol=1e-5, atol=2e-6)
    numbers = [output.true_shift, output.estimated_shift, output.true_scale, output.estimated_scale]
    np.testing.assert_allclose(numbers, GOLDEN[case + "monitoring"], rtol=1e-5)


def test_neither_scale_nor_depth_of_an_estimate_matters_but_a_turn_does():
    torch.manual_seed(0)
    true = torch.randn(2, 5, 6, 3, dtype=torch.float64)
    valid = torch.rand(2, 5, 6) > 0.2
    still = torch.eye(4, dtype=torch.float64)[:3]
    alike = normalize_point_maps(true, 3 * true + torch.tensor([0.0, 0, 8]), valid, still)
    torch.testing.assert_close(alike.estimated, alike.true)
    turned = normalize_point_maps(true, true[..., [1, 0, 2]], valid, still)
    assert (turned.estimated - turned.true).abs().max() > 0.5
    with pytest.raises(ValueError, match="no pixel"):
        normalize_point_maps(true, true, torch.zeros_like(valid), still)


def test_clouds_are_compared_as_published():
    pred, true = GOLDEN["pc_pred"], GOLDEN["pc_gt"]
    score = compare_clouds(pred, true, GOLDEN["pc_pred_normals"], GOLDEN["pc_gt_normals"])
    np.testing.assert_allclose([score.acc, score.acc_med, score.nc1, score.nc1_med], GOLDEN["pc_accuracy"], rtol=1e-9)
    back = [score.comp, score.comp_med, score.nc2, score.nc2_med]
    np.testing.assert_allclose(back, GOLDEN["pc_completion"], rtol=1e-9)
    ratios = [completion_ratio(pred, true, distance) for distance in (0.05, 0.1)]
    np.testing.assert_allclose(ratios, GOLDEN["pc_completion_ratio_005_010"], rtol=1e-7)  # float32


def test_alignment_as_published():
    source = golden("ume_src")
    for target, case, with_scale in (
        ("ume_dst", "ume_{}", True),
        ("ume_dst_reflected", "ume_{}_reflected", True),
        ("ume_dst", "ume_noscale_{}", False),
    ):
        found = align_points(source, golden(target), with_scale=with_scale)
        for name, value in (("s", found.scale), ("R", found.rotation), ("t", found.translation)):
            torch.testing.assert_close(value, golden(case.format(name)), rtol=1e-9, atol=1e-9)


def test_registration_normals_and_score_as_published():
    pred, true = GOLDEN["icp_pred"], GOLDEN["icp_gt"]
    found = icp(pred, true, 0.1)
    np.testing.assert_allclose(found.transformation, GOLDEN["icp_transformation"], atol=1e-9)
    np.testing.assert_allclose([found.fitness, found.inlier_rmse], GOLDEN["icp_fitness_rmse"], rtol=1e-9)
    moved = found.apply(pred)
    normals, gt_normals = estimate_normals(moved), estimate_normals(true)
    for ours, theirs in ((normals, GOLDEN["icp_pred_normals"]), (gt_normals, GOLDEN["icp_gt_normals"])):
        np.testing.assert_allclose(np.abs((ours * theirs).sum(-1)), 1, atol=1e-6)
    score = compare_clouds(moved, true, normals, gt_normals)
    np.testing.assert_allclose([score.acc, score.acc_med, score.nc1, score.nc1_med], GOLDEN["icp_accuracy"], rtol=1e-6)
    number = re.compile(r"\d\.\d+")
    output, published = scene_line("chess/seq-03", score), str(GOLDEN["icp_log_line"]).strip()
    assert number.sub("#", output) == number.sub("#", published)
    np.testing.assert_allclose(*(np.array(number.findall(line), float) for line in (output, published)), rtol=1e-9)


def test_mean_line_as_published():
    number = re.compile(r": ([\d.]+)")
    lines = str(GOLDEN["log_lines"]).strip().splitlines()
    scores = [ReconstructionScore(*map(float, number.findall(line))) for line in lines]
    assert [scene_line(f"s{i}/seq-0{i}", score) for i, score in enumerate(scores)] == lines
    assert mean_line(mean_score(scores)) == str(GOLDEN["log_mean_line"]).rstrip("\n")


def plane(side: int, z: float = 0.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(side, dtype=float), np.arange(side, dtype=float))
    return np.stack([x.ravel(), y.ravel(), np.full(side * side, z)], -1)


def test_scores_by_hand():
    true = plane(5)
    up = np.tile([0.0, 0, 1], (25, 1))
    perfect = compare_clouds(true, true, up, -up)  # a normal's sign means nothing
    assert perfect.numbers() == pytest.approx(
        dict.fromkeys(("acc", "comp", "acc_med", "comp_med"), 0)
        | dict.fromkeys(("nc1", "nc2", "nc1_med", "nc2_med", "nc", "nc_med"), 1)
    )
    # One of the points only, 2 above a corner: acc is 2; comp grows with the distance from the corner.
    one = compare_clouds(np.array([[0.0, 0, 2]]), true, np.array([[0.6, 0, 0.8]]), up)
    assert (one.acc, one.acc_med) == (2, 2)
    assert one.comp == pytest.approx(np.sqrt((true**2).sum(-1) + 4).mean())
    assert (one.nc1, one.nc2) == pytest.approx((0.8, 0.8))
    with pytest.raises(ValueError, match="got 0 and 25"):
        compare_clouds(np.zeros((0, 3)), true, np.zeros((0, 3)), up)


def test_normals_of_a_plane_and_of_too_few_points():
    np.testing.assert_allclose(np.abs(estimate_normals(plane(8) @ np.diag([1.0, 1, 1]))[:, 2]), 1, atol=1e-12)
    assert estimate_normals(np.zeros((2, 3))).tolist() == [[0, 0, 1]] * 2


def test_registration_undoes_a_small_motion_and_leaves_what_is_far():
    random = np.random.default_rng(0)
    cloud = random.uniform(-1, 1, (400, 3))
    moved = cloud + np.array([0.02, -0.01, 0.03])
    found = icp(moved, cloud, 0.1)
    np.testing.assert_allclose(found.apply(moved), cloud, atol=1e-9)
    assert found.fitness == 1
    far = icp(cloud + 100, cloud, 0.1)
    assert far.fitness == 0 and far.inlier_rmse == 0
    np.testing.assert_array_equal(far.transformation, np.eye(4))
