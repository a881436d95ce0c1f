"""Relative poses of all pairs of frames, and relative errors of depth."""

import pytest
import torch

from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc, compose_poses, invert_pose, pose_enc_from_cameras
from streamvggt.losses.camera import CameraTerm, pair_errors, relative_poses
from streamvggt.losses.criterion import MapPair
from streamvggt.losses.multitask import SupervisedMapTerm
from streamvggt.losses.target import Target
from streamvggt.prediction import Prediction

SIZE = (28, 42)


def encodings(seed: int, batch: int = 2, frames: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(batch, frames, 3, 3, generator=generator, dtype=torch.float64)).Q
    rotation = rotation * torch.linalg.det(rotation)[..., None, None].sign()
    translation = torch.randn(batch, frames, 3, 1, generator=generator, dtype=torch.float64)
    intrinsics = torch.tensor([[40.0, 0, 21], [0, 40, 14], [0, 0, 1]], dtype=torch.float64).expand(batch, frames, 3, 3)
    return pose_enc_from_cameras(Cameras(torch.cat([rotation, translation], -1), intrinsics), SIZE)


def test_relative_poses_are_the_composed_ones():
    pose_enc = encodings(0)
    poses = cameras_from_pose_enc(pose_enc, SIZE).cam_from_world
    rotation, translation = relative_poses(pose_enc)
    for i in range(4):
        for j in range(4):
            expected = compose_poses(poses[:, i], invert_pose(poses[:, j]))
            torch.testing.assert_close(torch.cat([rotation[:, i, j], translation[:, i, j, :, None]], -1), expected)


def test_pairs_do_not_depend_on_the_world_and_opposite_directions_cost_most():
    known = encodings(1)
    errors = pair_errors(known, known)
    assert all(error < 2e-3 for error in errors)
    opposite = known.clone()
    opposite[..., :3] *= -1
    rotation, translation, direction = pair_errors(opposite, known)
    assert rotation < 2e-3 and direction.item() == pytest.approx(2, abs=0.01)
    torch.testing.assert_close(
        translation, 2 * relative_poses(known)[1][:, ~torch.eye(4, dtype=torch.bool)].abs().mean()
    )


def test_the_term_adds_the_pairs_and_leaves_uncounted_sequences_out():
    known, output = encodings(2), encodings(3).requires_grad_()
    valid = torch.ones(2, 4, 8, 8, dtype=torch.bool)
    valid[1] = False
    target = Target(Prediction(SIZE, pose_enc=known), valid=valid)
    plain, pairs = (
        CameraTerm(weight=1.0, min_valid_pixels=1, **options)
        for options in ({}, {"pair_rotation": 1.0, "pair_translation": 2.0, "pair_direction": 3.0})
    )
    prediction = Prediction(SIZE, pose_enc=output)
    added = pairs(prediction, target) - plain(prediction, target)
    of_first = pair_errors(output[:1], known[:1])
    expected = sum(weight * error for weight, error in zip((1, 2, 3), of_first, strict=True))
    assert added.item() == pytest.approx(expected.item() / 2, rel=0.02)
    added.backward()
    assert output.grad[0].abs().max() > 0 and output.grad[1].abs().max() == 0


@pytest.mark.parametrize("error", ["huber", "l1", "l2"])
def test_unknown_poses_of_uncounted_sequences_give_no_gradient(error):
    known, output = encodings(2), encodings(3).requires_grad_()
    known[1] = torch.nan
    valid = torch.ones(2, 4, 8, 8, dtype=torch.bool)
    valid[1] = False
    term = CameraTerm(weight=1.0, error=error, min_valid_pixels=1)
    term(Prediction(SIZE, pose_enc=output), Target(Prediction(SIZE, pose_enc=known), valid=valid)).backward()
    assert output.grad[0].abs().max() > 0 and output.grad[1].abs().max() == 0


def test_logarithms_make_errors_relative():
    """Twice the depth costs the same near and far; what is not valid may be anything."""
    near, far = torch.full((1, 1, 12, 12, 1), 0.5), torch.full((1, 1, 12, 12, 1), 50.0)
    valid = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    valid[..., 0] = False
    conf = torch.ones(1, 1, 12, 12)
    term = SupervisedMapTerm(weight=1.0, log=True, error_quantile=None)
    losses = []
    for depth in (near, far):
        output = torch.where(valid[..., None], 2 * depth, torch.nan)
        losses.append(
            term(MapPair(output, conf, torch.where(valid[..., None], depth, -1.0), None, valid))["regression"]
        )
    torch.testing.assert_close(losses[0], losses[1])
    assert losses[0].item() == pytest.approx(0.6931, abs=1e-3)
