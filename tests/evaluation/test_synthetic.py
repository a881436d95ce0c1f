"""The held-out table: the truth is perfect, the baselines are not, and the command runs."""

import json

import pytest
import torch

from streamvggt.evaluation import synthetic
from streamvggt.evaluation.pose_metrics import relative_pose_errors
from streamvggt.evaluation.synthetic import (
    Estimate,
    evaluate,
    held_out_sequences,
    model_estimator,
    poses_from_points,
    static_camera_baseline,
)
from streamvggt.model.weights import load_model
from streamvggt.stream.policies.sliding_window import KeepAll


def truth(batch):
    return Estimate(batch.cam_from_world[0], batch.depth[0], batch.points()[0])


def test_ground_truth_is_perfect_in_any_scale_and_a_still_camera_is_not():
    def scaled_truth(batch):
        pose = batch.cam_from_world[0].clone()
        pose[..., 3] *= 7
        return Estimate(pose, batch.depth[0] * 7, batch.points()[0] * 7)

    table = evaluate(
        {"truth": truth, "scaled": scaled_truth, "still": static_camera_baseline},
        held_out_sequences("val", 3, 4, 28, 42),
    )
    for name in ("truth", "scaled"):
        assert table[name]["AbsRel"] < 1e-5
        assert table[name]["δ<1.25"] == 1
        assert table[name]["AUC@5"] > 0.99
        assert table[name]["ATE"] < 1e-4
        assert table[name]["points"] < 1e-4
    assert table["still"]["AbsRel"] > 0.1
    assert table["still"]["AUC@30"] < 0.05
    assert table["still"]["points"] > 0.1


def test_streamed_and_full_sequences_have_equal_scores():
    model = load_model("random:small", heads=("camera", "depth", "points"))
    estimators = {"full": model_estimator(model), "stream": model_estimator(model, KeepAll())}
    table = evaluate(estimators, held_out_sequences("val", 2, 3, 28, 42))
    for column, value in table["full"].items():
        if column != "ms":
            assert table["stream"][column] == pytest.approx(value, rel=1e-3), column


def test_points_and_depth_imply_the_poses():
    """The ground-truth points, moved, turned and scaled, with the ground-truth depth in another unit."""
    batch = next(held_out_sequences("val", 1, 3, 28, 42, "rooms"))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    turn = turn * torch.linalg.det(turn)
    world = 3 * batch.points()[0] @ turn.T + torch.tensor([1.0, -2.0, 0.5])
    poses = poses_from_points(0.2 * batch.depth[0], batch.intrinsics[0], world)
    assert torch.stack(relative_pose_errors(poses, batch.cam_from_world[0])).max() < 0.1
    seen = (world.flatten(1, 2) @ poses[:, :, :3].mT + poses[:, None, :, 3]).unflatten(1, (28, 42))
    torch.testing.assert_close(seen[..., 2], 3 * batch.depth[0], rtol=1e-3, atol=1e-3)


def test_the_command_writes_its_table(tmp_path, monkeypatch, capsys):
    arguments = ["random:small", "--sequences", "2", "--frames", "2", "--image-size", "28", "28"]
    monkeypatch.setattr("sys.argv", ["synthetic", *arguments, "--json", str(tmp_path / "new/table.json")])
    synthetic.main()
    assert "| constant depth, static camera |" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "new/table.json").read_text(encoding="utf-8"))) == 2


def test_no_scene_is_judged_that_was_trained_on():
    val, test = (next(held_out_sequences(split, 1, 1, 28, 28)) for split in ("val", "test"))
    assert not torch.equal(val.depth, test.depth)


def test_a_memory_that_is_unknown_is_reported(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["synthetic", "random:small", "--policy", "elephant"])
    with pytest.raises(SystemExit):
        synthetic.main()
    assert "policy 'elephant' is unknown" in capsys.readouterr().err
