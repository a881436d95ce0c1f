"""Pose metrics: the published numbers, evo's, and trajectories that one can check with a pencil."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from streamvggt.evaluation.pose_metrics import (
    auc,
    pose_accuracy,
    relative_pose_errors,
    rotation_angle,
    trajectory_errors,
)
from streamvggt.geometry.camera import Cameras, invert_pose
from streamvggt.geometry.pointmap import project
from streamvggt.geometry.rotation import matrix_from_quaternion

GOLDENS = Path(__file__).parents[1] / "goldens"
GOLDEN = np.load(GOLDENS / "metrics.npz")
CASES = json.loads(str(GOLDEN["pose_cases"]))


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize("case", range(len(CASES)), ids=CASES)
def test_pairs_of_poses_as_published(case):
    rotation, translation = relative_pose_errors(golden("pose_pred")[case, :, :3], golden("pose_gt")[case, :, :3])
    torch.testing.assert_close(rotation, golden("pose_r_err_deg")[case], atol=1e-4, rtol=0)
    torch.testing.assert_close(translation, golden("pose_t_err_deg")[case], atol=1e-4, rtol=0)
    shares = [pose_accuracy(rotation, 5), pose_accuracy(translation, 5)]
    np.testing.assert_allclose(shares, GOLDEN["pose_racc5_tacc5"][case], atol=1e-12)
    errors = torch.maximum(rotation, translation)
    output = [auc(errors, int(threshold)) for threshold in GOLDEN["pose_auc_thresholds"]]
    np.testing.assert_allclose(output, GOLDEN["pose_auc"][case], atol=1e-12)


def test_single_precision_predictions_as_published():
    """Up to the published code's own rounding: it goes through single precision quaternions, we compute in double."""
    for case in range(3):
        output = relative_pose_errors(golden("pose_pred")[case, :, :3].float(), golden("pose_gt")[case, :, :3])
        for ours, name in zip(output, ("pose_mixed_r_err_deg", "pose_mixed_t_err_deg"), strict=True):
            torch.testing.assert_close(ours, golden(name)[case], atol=3e-3, rtol=0)
        errors = torch.maximum(*output)
        output = [auc(errors, int(threshold)) for threshold in GOLDEN["pose_auc_thresholds"]]
        np.testing.assert_allclose(output, GOLDEN["pose_mixed_auc"][case], atol=1e-12)


def test_areas_at_the_edges_of_bins_and_of_pooled_pairs_as_published():
    thresholds = GOLDEN["pose_auc_thresholds"].tolist()
    np.testing.assert_allclose([auc(golden("auc_edge_err"), t) for t in thresholds], GOLDEN["auc_edge"], atol=1e-12)
    areas = []
    for category in ("apple", "vase"):
        errors = torch.maximum(golden(f"cat_{category}_r"), golden(f"cat_{category}_t"))
        areas.append([auc(errors, threshold) for threshold in thresholds])
        np.testing.assert_allclose(areas[-1], GOLDEN[f"cat_{category}_auc"], atol=1e-12)
    np.testing.assert_allclose(np.mean(areas, 0), GOLDEN["cat_mean_auc"], atol=1e-12)


def test_what_is_not_a_number_is_as_wrong_as_can_be():
    true = golden("pose_gt")[0, :3, :3]
    broken = true.clone()
    broken[1] = math.nan
    rotation, translation = relative_pose_errors(broken, true)
    assert rotation.tolist() == pytest.approx([180, 0, 180], abs=1e-4)
    assert translation.tolist() == pytest.approx([90, 0, 90], abs=1e-4)
    assert trajectory_errors(broken, true).ate == math.inf


def test_trajectory_errors_are_those_of_evo():
    stored = json.loads((GOLDENS / "trajectory_evo.json").read_text(encoding="utf-8"))
    true, ours = (
        invert_pose(torch.tensor(stored[f"{which}_world_from_cam"], dtype=torch.float64)[:, :3])
        for which in ("true", "estimated")
    )
    output = trajectory_errors(ours, true)
    assert output.ate == pytest.approx(stored["ate"], rel=1e-9)
    assert output.rpe_translation == pytest.approx(stored["rpe_translation"], rel=1e-9)
    assert output.rpe_rotation == pytest.approx(stored["rpe_rotation"], rel=1e-9)


def line(centers, degrees=None) -> torch.Tensor:
    """Camera-from-world poses at centers (S, 3), turned about y."""
    half = torch.deg2rad(torch.tensor(degrees or [0.0] * len(centers), dtype=torch.float64)) / 2
    zero = torch.zeros_like(half)
    rotation = matrix_from_quaternion(torch.stack([zero, half.sin(), zero, half.cos()], -1))
    centers = torch.tensor(centers, dtype=torch.float64)
    return torch.cat([rotation, -(rotation @ centers[..., None])], -1)


def test_trajectory_errors_by_hand():
    corner = [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]]
    true = line(corner)
    turned = line([[7 - 3 * x, 5, -3 * z] for x, _, z in corner], [180.0] * 4)  # another world, another scale
    perfect = trajectory_errors(turned, true)
    assert perfect.ate < 1e-9 and perfect.rpe_translation < 1e-9 and perfect.rpe_rotation < 1e-6
    # All at one place: every true center is √½ from the middle, every step is 1 off.
    still = trajectory_errors(line([[0, 0, 0]] * 4), true)
    assert still.ate == pytest.approx(math.sqrt(0.5))
    assert still.rpe_translation == pytest.approx(1)
    # One camera turned by 12°: two of three steps are turned by that.
    turned = trajectory_errors(line(corner, [0.0, 12.0, 0.0, 0.0]), true)
    assert turned.rpe_rotation == pytest.approx(12 * math.sqrt(2 / 3))
    assert turned.ate < 1e-9
    # Mirrored, a path with depth cannot be laid onto itself.
    path = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert trajectory_errors(line([[-x, y, z] for x, y, z in path]), line(path)).ate > 0.2
    # A straight line has no best rotation but fits all the same.
    assert trajectory_errors(line([[2 * x, 0, 0] for x in range(4)]), line([[0, x, 0] for x in range(4)])).ate < 1e-9
    # Standing, then walking: over two frames the errors of two steps add up.
    walk = line([[0, 0, 0], [1, 0, 0], [2, 0, 0], [4, 0, 0]])
    assert trajectory_errors(line([[0, 0, 0]] * 4), walk, frame_delta=2).rpe_translation == pytest.approx(
        math.sqrt(6.5)
    )
    with pytest.raises(ValueError, match="same 2 or more"):
        trajectory_errors(true[:2], true)


def test_angles_of_rotations():
    for degrees in (0.0, 1e-6, 90.0, 179.999999, 180.0):
        angle = torch.rad2deg(rotation_angle(line([[0, 0, 0]], [degrees])[0, :, :3])).item()
        assert angle == pytest.approx(degrees, abs=1e-7)


def test_points_project_as_published():
    cameras = Cameras(golden("ba_extri"), golden("ba_intri"))
    pixels, depth = project(golden("ba_points").expand(4, -1, -1), cameras)
    np.testing.assert_allclose(pixels, GOLDEN["ba_proj"], rtol=1e-9)
    np.testing.assert_allclose(depth, GOLDEN["ba_cam"][:, 2], rtol=1e-9)
