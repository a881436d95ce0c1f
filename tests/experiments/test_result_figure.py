"""The picture of a result beside its truth."""

import numpy as np
from PIL import Image
from small_models import TINY

from experiments import result_figure
from experiments.result_figure import draw, record
from streamvggt import StreamVGGT
from streamvggt.geometry.camera import Cameras


def test_the_ground_truth_in_another_world_and_scale_is_drawn_as_the_ground_truth():
    truth = record(8, 3, 20, "rooms", 42, 56)
    pose = truth.cam_from_world[0].clone()
    pose[..., 3] *= 5
    drawn = draw(truth, truth.depth[0] * 5, truth.depth[0], Cameras(pose, truth.intrinsics[0]), truth.points()[0] * 5)
    half = drawn.shape[1] // 2
    clouds = drawn[3 * (result_figure.CELL[0] + result_figure.LABEL) :]
    left, right = clouds[:, :half].astype(int), clouds[:, half:].astype(int)
    inked = (left < 250).any(-1)
    assert inked.mean() > 0.01
    # The least confident points are skipped on the right; what is there is what the truth shows.
    shown = (right < 250).any(-1) & inked
    assert shown.sum() > 0.4 * inked.sum()
    assert (np.abs(left - right).max(-1) < 30)[shown].mean() > 0.8


def test_the_command_writes_an_image(tmp_path, monkeypatch):
    StreamVGGT(**{**TINY, "heads": ("camera", "depth", "points")}).save_pretrained(tmp_path / "weights")
    words = ["--weights", str(tmp_path / "weights"), "--frames", "2", "--image-size", "28", "42"]
    monkeypatch.setattr("sys.argv", ["result_figure", "--out", str(tmp_path / "out.jpg"), *words])
    result_figure.main()
    assert Image.open(tmp_path / "out.jpg").size[0] == result_figure.SHOWN * result_figure.CELL[1]
