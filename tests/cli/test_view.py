"""`streamvggt view`: the viewer alone, on one input."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.util import find_spec

import pytest
from browser import ROOT
from small_models import TINY

from streamvggt import StreamVGGT
from streamvggt.cli import main


@pytest.fixture
def weights(tmp_path):
    StreamVGGT(**TINY).save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def test_it_serves_a_growing_scene_until_it_is_ended_and_leaves_nothing_behind(weights, tmp_path):
    pytest.importorskip("uvicorn", reason="the viewer needs `pip install -r requirements_demo.txt`")
    words = ["view", "assets/clip.mp4", "--weights", str(weights), "--max-frames", "2", "--no-browser", "--port", "0"]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "temporary")}
    process = subprocess.Popen(
        [sys.executable, "-m", "streamvggt", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        address = re.search(r"http://\S+/scene/\S+/", process.stdout.readline())[0]
        have, state = 0, b""
        while b'"state": "finished"' not in state:
            with urllib.request.urlopen(f"{address}updates?have={have}&run=1") as answer:
                state = answer.read()
        assert b'"num_frames": 2' in state
        with urllib.request.urlopen(f"{address}?expect-run") as answer:
            assert b"viewer.js" in answer.read()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert not list((tmp_path / "temporary").glob("streamvggt-*"))


def test_wrong_input_is_an_error_before_anything_starts(weights, capsys):
    pytest.importorskip("uvicorn", reason="the viewer needs `pip install -r requirements_demo.txt`")
    assert main(["view", "nowhere.mp4"]) == 1
    assert "No folder, image, video, address or webcam at nowhere.mp4" in capsys.readouterr().err
    assert main(["view", str(ROOT / "assets"), "--fps", "3"]) == 1
    assert "photos have no times" in capsys.readouterr().err


def test_missing_weights_are_reported_before_the_server_starts(tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="the viewer needs `pip install -r requirements_demo.txt`")
    assert main(["view", str(ROOT / "assets" / "clip.mp4"), "--weights", str(tmp_path / "none.pt")]) == 1
    assert "none.pt" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("rerun") is None, reason="rerun-sdk is not installed")
def test_rerun_gets_each_frame(weights, tmp_path, monkeypatch):
    import rerun
    from rerun.chunk import RrdReader

    path = tmp_path / "seen.rrd"
    monkeypatch.setattr(rerun.RecordingStream, "spawn", lambda self, **options: self.save(path, **options))
    words = [
        "view",
        str(ROOT / "assets" / "clip.mp4"),
        "--weights",
        str(weights),
        "--max-frames",
        "3",
        "--device",
        "cpu",
        "--fov",
        "90",
        "--rerun",
    ]
    assert main(words) == 0
    focal, entities = [], set()
    for chunk in RrdReader(path).store().stream():
        entities.add(chunk.entity_path)
        batch = chunk.to_record_batch()
        if "Pinhole:image_from_camera" in batch.schema.names:
            focal += [matrix[0][0] for matrix in batch.column("Pinhole:image_from_camera").to_pylist() if matrix]
    assert {f"/world/points/{position:06d}" for position in range(3)} < entities
    assert focal == pytest.approx(3 * [28.0])  # of a field of view of 90° over 56 pixels
