"""Targets from measurements, and the points to track."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from streamvggt.data.view import Batch
from streamvggt.geometry.camera import cameras_from_pose_enc, invert_pose
from streamvggt.geometry.pointmap import project
from streamvggt.training.supervision import GroundTruth, sample_queries, supervised


def moved(batch: Batch) -> Batch:
    """The same scenes in a world that lies elsewhere."""
    turn = cameras_from_pose_enc(torch.tensor([1.0, -2, 3, 0.1, 0.4, -0.3, 0.8, 1, 1]), (28, 42)).cam_from_world
    pose = batch.cam_from_world
    rotation = pose[..., :3] @ turn[:, :3]
    translation = pose[..., :3] @ turn[:, 3:] + pose[..., 3:]
    return replace(batch, cam_from_world=torch.cat([rotation, translation], -1))


def test_the_first_camera_is_the_world(planes):
    batch = moved(planes(2)[3])
    target = GroundTruth()(batch, ("camera",), None, None).prediction
    identity = torch.tensor([0.0, 0, 0, 0, 0, 0, 1])
    torch.testing.assert_close(target.pose_enc[:, 0, :7], identity.expand(2, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        target.pose_enc, GroundTruth()(planes(2)[3], (), None, None).prediction.pose_enc, atol=1e-5, rtol=0
    )


def test_targets_are_exact_in_half_precision_training(planes):
    batch = moved(planes(2)[3])
    exact = GroundTruth()(batch, ("camera", "depth", "points"), None, None).prediction
    with torch.autocast("cpu", torch.bfloat16):
        target = GroundTruth()(batch, ("camera", "depth", "points"), None, None).prediction
    assert torch.equal(target.pose_enc, exact.pose_enc) and torch.equal(target.points, exact.points)


def test_the_unit_is_the_mean_distance_of_the_valid_points(planes):
    batch = moved(planes(2)[5])
    batch = replace(batch, depth=batch.depth * torch.tensor([1.0, 50.0])[:, None, None, None])
    pose = batch.cam_from_world.clone()
    batch.valid[:, 1, :5] = False
    target = GroundTruth()(batch, ("points",), None, None).prediction
    mean = (target.points.norm(dim=-1) * batch.valid).flatten(1).sum(1) / batch.valid.flatten(1).sum(1)
    torch.testing.assert_close(mean, torch.ones(2), atol=1e-4, rtol=0)
    raw = GroundTruth(normalize=False)(replace(batch, cam_from_world=pose), (), None, None).prediction
    factor = raw.depth[:, 0, 0, 0, 0] / target.depth[:, 0, 0, 0, 0]
    torch.testing.assert_close(raw.pose_enc[..., :3], target.pose_enc[..., :3] * factor[:, None, None])
    assert torch.equal(raw.pose_enc[..., 3:], target.pose_enc[..., 3:])


def test_points_project_to_their_pixels_and_depths(planes):
    target = GroundTruth()(moved(planes(2)[5]), ("points",), None, None).prediction
    pixels, depth = project(target.points.flatten(2, 3), target.cameras())
    torch.testing.assert_close(depth.reshape(target.depth.shape), target.depth, atol=1e-4, rtol=0)
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(42.0), indexing="ij")
    expected = torch.stack([x, y], -1).flatten(0, 1).expand(pixels.shape)
    torch.testing.assert_close(pixels, expected, atol=2e-3, rtol=0)


def test_measured_tracks_are_the_queries(planes):
    batch = planes(2)[1]
    assert torch.equal(GroundTruth().query_points(batch, torch.Generator()), batch.tracks[:, 0])


def test_queries_are_valid_pixels_or_any_where_there_are_too_few():
    valid = torch.zeros(2, 20, 30, dtype=torch.bool)
    valid[0, 5:15, 3:13] = True
    valid[1, 0, :10] = True
    queries = sample_queries(valid, 64, torch.Generator().manual_seed(0))
    x, y = queries[0].long().unbind(-1)
    assert valid[0, y, x].all()
    assert len({tuple(q) for q in queries[0].tolist()}) > 20
    assert queries[1].max() > 5


def test_inverse_is_used_for_the_world_not_for_the_frames(planes):
    batch = planes()[0]
    pose = GroundTruth()(batch, (), None, None).prediction.cameras().cam_from_world
    centers = invert_pose(pose)[0, :, :, 3]
    assert centers[-1, 0] > centers[0, 0]  # the camera moved to the right


def test_queries_are_drawn_as_published():
    golden = np.load(Path(__file__).parent.parent / "goldens" / "losses.npz")
    valid = torch.from_numpy(golden["query/mask"]).bool()
    queries = sample_queries(valid, 64, torch.Generator().manual_seed(123))
    np.testing.assert_array_equal(queries, golden["query/points_seed123"])


def test_a_teacher_supervises_every_pixel_of_a_sequence_without_measurements(planes):
    batch = planes(3)[1]
    batch.valid[0] = False  # a video
    batch.valid[1] = False  # all sky
    batch.sky[1] = True
    batch.valid[2, 1] = False  # a frame whose sensor failed
    counted = supervised(batch)
    assert counted[0].all() and not counted[1].any()
    assert torch.equal(counted[2], batch.valid[2])
