"""`reconstruct --loop-closure` corrects what was written before the loop was closed; shown with a network that only
drifts."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from analytic_room import look, walk
from PIL import Image

from experiments.simulated_model import Errors, SimulatedModel
from streamvggt import SubmapSession
from streamvggt.evaluation.pose_metrics import trajectory_errors
from streamvggt.export import ReconstructionResult
from streamvggt.model.config import VGGTConfig
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions

FRAMES = 72
WORDS = ("--submaps", "16,5", "--loop-closure", "--formats", "ply,tum")


@pytest.fixture(scope="module")
def known():
    return look(walk(FRAMES, laps=1.2))


@pytest.fixture
def room_photos(known, tmp_path):
    folder = tmp_path / "room"
    folder.mkdir()
    for number, image in enumerate(known.images):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture(autouse=True)
def drifting(known, monkeypatch):
    def load(*_, **__):
        simulated = SimulatedModel(known, Errors(rotation_drift_deg=0.25, noise=0.01))
        simulated.config = VGGTConfig(image_size=56)
        return simulated

    monkeypatch.setattr("streamvggt.cli.reconstruct.load_model", load)
    options = LoopClosureOptions(keyframe_interval=2, min_frame_gap=30)
    monkeypatch.setattr("streamvggt.stream.submaps.loop_closure.LoopClosureOptions", lambda: options)


def ate(out, known) -> float:
    poses = torch.from_numpy(np.array([camera.cam_from_world for camera in ReconstructionResult(out).cameras()]))
    return trajectory_errors(poses, known.cam_from_world).ate


@pytest.mark.slow
def test_loops_end_to_end_also_interrupted(reconstruct, command, options, room_photos, known, monkeypatch, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    status, output = command("reconstruct", room_photos, "--out", whole, *options, *WORDS)
    assert status == 0 and "closed, and all frames moved accordingly" in output
    record = json.loads((whole / "run.json").read_text(encoding="utf-8"))
    assert record["submaps"]["num_loops"] >= 1 and record["settings"]["loop_closure"] is True
    corrected = ate(whole, known)
    (whole / "corrections.json").rename(tmp_path / "aside")
    assert corrected < ate(whole, known) / 3
    (tmp_path / "aside").rename(whole / "corrections.json")

    # The exports and the trajectory are of the corrected cameras.
    centers = [
        -camera.cam_from_world[:, :3].T @ camera.cam_from_world[:, 3]
        for camera in ReconstructionResult(whole).cameras()
    ]
    np.testing.assert_allclose(np.loadtxt(whole / "trajectory.txt")[:, 1:4], centers, atol=1e-6)

    push = SubmapSession.push

    def interrupted(self, frame):
        if self.num_frames == 66:
            os.kill(os.getpid(), signal.SIGINT)
        return push(self, frame)

    with monkeypatch.context() as patch:
        patch.setattr(SubmapSession, "push", interrupted)
        assert reconstruct(room_photos, *WORDS)[0] == 130
    assert not (out / "corrections.json").exists()
    status, output = reconstruct(room_photos, *WORDS, "--resume")
    assert status == 0 and "computed again" not in output
    assert (out / "corrections.json").read_text(encoding="utf-8") == (whole / "corrections.json").read_text(
        encoding="utf-8"
    )
    assert (out / "points.ply").read_bytes() == (whole / "points.ply").read_bytes()


def test_loops_need_windows(reconstruct, room_photos, tmp_path):
    status, output = reconstruct(room_photos, "--loop-closure")
    assert status == 1 and "requires --submaps" in output and not (tmp_path / "out").exists()
