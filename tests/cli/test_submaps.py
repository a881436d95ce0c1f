"""`reconstruct --submaps`: one result in one world, as easily interrupted as any other."""

import json
import os
import signal

import numpy as np
import pytest
import torch

from streamvggt import SubmapOptions, SubmapSession, load_frames, load_model
from streamvggt.export import ReconstructionResult
from streamvggt.stream.policies.sliding_window import SlidingWindow
from streamvggt.stream.session import StreamSession

FRAMES = 20
WORDS = ("--max-frames", FRAMES, "--submaps", "6,3")


@pytest.fixture(scope="module")
def expected(many_photos, weights):
    """Cameras and depth that the session gives without the command line."""
    model = load_model(weights, causal=True, heads=("camera", "depth"), device="cpu")
    session = SubmapSession(model, submaps=SubmapOptions(6, 3), policy=SlidingWindow(1, 2))
    size = model.config.image_size
    output = [session.push(frame) for frame in load_frames(many_photos, size=size, max_frames=FRAMES)]
    poses = torch.cat([one.map(lambda tensor: tensor.double()).cameras().cam_from_world[0] for one in output])
    return poses.numpy(), torch.cat([one.depth[0, ..., 0] for one in output]).numpy()


def assert_is(out, expected) -> None:
    frames = list(ReconstructionResult(out))
    np.testing.assert_allclose([frame.cam_from_world for frame in frames], expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose([frame.depth for frame in frames], expected[1], rtol=1e-5)


def test_windows_end_to_end(reconstruct, many_photos, expected, points_seen_once, tmp_path):
    status, output = reconstruct(many_photos, *WORDS, "--formats", "glb,ply,colmap,tum")
    assert status == 0
    out = tmp_path / "out"
    assert_is(out, expected)
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["submaps"] == "6,3"
    assert record["submaps"]["num_submaps"] > 1
    doubtful = record["submaps"]["num_restarts"] or record["submaps"]["num_pose_alignments"]
    assert ("submaps" in output and "aligned by pose" in output) == bool(doubtful)  # noise has no geometry
    for name in ("scene.glb", "points.ply", "colmap", "trajectory.txt"):
        assert (out / name).exists()


def test_an_interrupted_run_of_windows_continues_where_it_stopped(
    reconstruct, many_photos, expected, monkeypatch, tmp_path
):
    push = SubmapSession.push
    for after in (4, 13):

        def interrupted(self, frame, after=after):
            if self.num_frames == after:
                os.kill(os.getpid(), signal.SIGINT)
            return push(self, frame)

        with monkeypatch.context() as patch:
            patch.setattr(SubmapSession, "push", interrupted)
            assert reconstruct(many_photos, *WORDS, "--resume")[0] == 130
        assert len(ReconstructionResult(tmp_path / "out")) == after + 1
    status, output = reconstruct(many_photos, *WORDS, "--resume")
    assert status == 0 and "computed again" not in output
    assert_is(tmp_path / "out", expected)


def test_one_long_window_is_a_plain_run(command, reconstruct, many_photos, options, tmp_path):
    words = ("--max-frames", 8)
    assert reconstruct(many_photos, *words)[0] == 0
    assert (
        command("reconstruct", many_photos, "--out", tmp_path / "long", *options, *words, "--submaps", "20,4")[0] == 0
    )
    for a, b in zip(ReconstructionResult(tmp_path / "out"), ReconstructionResult(tmp_path / "long"), strict=True):
        assert np.array_equal(a.depth, b.depth) and np.array_equal(a.cam_from_world, b.cam_from_world)


def test_other_windows_do_not_continue_with_a_result(reconstruct, photos):
    assert reconstruct(photos, "--submaps", "4,2")[0] == 0
    status, output = reconstruct(photos, "--submaps", "6,2", "--resume")
    assert status == 1 and "submaps was '4,2' and is now '6,2'" in output


@pytest.mark.parametrize("words", ["5", "6,4", "a,b"])
def test_bad_windows_are_rejected_before_anything_is_done(reconstruct, photos, words, tmp_path, monkeypatch):
    monkeypatch.setattr(StreamSession, "push", None)
    status, output = reconstruct(photos, "--submaps", words)
    assert status == 1 and "expected" in output and not (tmp_path / "out").exists()
