"""Evaluation on scenes of one's own: the truth scores perfectly, and the program says what it could not evaluate."""

import json
from types import SimpleNamespace

import pytest
import torch
from own_scenes import world_clips, write_colmap, write_images, write_transforms

from streamvggt.data.own.scene import read_scene
from streamvggt.evaluation.own import COLUMNS, evaluate, main
from streamvggt.geometry.camera import Cameras, pose_enc_from_cameras
from streamvggt.prediction import Prediction


@pytest.fixture(scope="module")
def clip():
    return world_clips(1, 4, 70, 98, seed=5, fov=1.2)[0]


class Truth:
    """Predicts the truth in another unit, with every depth wrong by a factor."""

    model = SimpleNamespace(patch_size=14)

    size = 98

    def __init__(self, clip, unit=2.0, error=1.0):
        cameras = [Cameras(view.cam_from_world, view.intrinsics) for view in clip]
        pose_enc = torch.stack([pose_enc_from_cameras(camera, (70, 98)) for camera in cameras])
        pose_enc[:, :3] *= unit
        depth = torch.stack([view.depth for view in clip]) * unit
        depth[::2] *= error
        self.prediction = Prediction((70, 98), pose_enc=pose_enc[None], depth=depth[None, ..., None])

    def predict_sequence(self, images):
        assert all(image.shape == (3, 70, 98) for image in images)
        return self.prediction


def test_ground_truth_has_no_error(clip, tmp_path):
    write_transforms(tmp_path, clip, depth="npy")
    numbers = evaluate(Truth(clip), read_scene(tmp_path), tmp_path, "scale")
    assert set(numbers) == set(COLUMNS)
    assert numbers["AUC@30"] == 1 and numbers["δ < 1.25"] == 1
    assert max(numbers[name] for name in ("Abs Rel", "ATE", "RPE trans", "RPE rot")) < 1e-3
    wrong = evaluate(Truth(clip, error=1.5), read_scene(tmp_path), tmp_path, "scale")
    assert wrong["Abs Rel"] > 0.1 and wrong["ATE"] < 1e-3


def test_cameras_alone_are_compared_where_there_is_no_depth(clip, tmp_path):
    write_colmap(tmp_path, clip, has_depth=False)
    assert set(evaluate(Truth(clip), read_scene(tmp_path), tmp_path, "scale")) == set(COLUMNS[2:])


def test_the_program_reports_every_scene_and_what_is_wrong(clip, tmp_path, capsys):
    write_transforms(tmp_path / "scenes/room", clip)
    write_colmap(tmp_path / "scenes/yard", clip, has_depth=False)
    write_images(tmp_path / "scenes/photos", clip)
    out = tmp_path / "own.json"
    words = [tmp_path / "scenes", "--weights", "random:small", "--size", "56", "--max_frames", "3", "--json", out]
    assert main([str(word) for word in words]) == 1
    output = capsys.readouterr()
    assert "photos: expected cameras to compare with, got images only" in output.err.replace(str(tmp_path), "")
    content = json.loads(out.read_text(encoding="utf-8"))
    assert set(content["scenes"]) == {"room", "yard"}
    assert set(content["mean"]) == set(COLUMNS)
    assert content["mean"]["Abs Rel"] == content["scenes"]["room"]["Abs Rel"]
    assert "| yard | – | – |" in output.out and "| mean of 2 |" in output.out


def test_too_few_frames_are_named(clip, tmp_path):
    write_transforms(tmp_path, clip[:1])
    with pytest.raises(ValueError, match="expected at least 2 frames, got 1"):
        evaluate(SimpleNamespace(), read_scene(tmp_path), tmp_path, "scale")
