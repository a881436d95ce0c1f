"""`streamvggt reconstruct --clips`: many clips, in one process and in several."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from launching import ROOT
from processes import run_together

from streamvggt.cli import main
from streamvggt.cli import reconstruct as program
from streamvggt.cli.batch import find_clips, is_finished, read_report
from streamvggt.cli.preflight import default_output_dir


@pytest.fixture
def clips(photos, tmp_path) -> Path:
    """Folder of two clips, a broken one between them, and what is no clip."""
    folder = tmp_path / "clips"
    for name in ("take 2", "take 10"):
        shutil.copytree(photos, folder / name)
    (folder / "take 9.mp4").write_bytes(b"no video")
    (folder / "notes.md").write_text("no clip", encoding="utf-8")
    (folder / "empty").mkdir()
    return folder


def statuses(out: Path) -> dict[str, str]:
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {name: entry["status"] for name, entry in summary.items()}


def test_a_folder_gives_its_clips_in_natural_order(clips):
    assert [*find_clips(clips)] == ["take 2", "take 9", "take 10"]
    shutil.copytree(clips / "take 2", clips / "take 9")
    assert [*find_clips(clips)] == ["take 2", "take 9", "take 9.mp4", "take 10"]


def test_a_list_gives_its_clips_by_their_place_below_the_common_folder(tmp_path):
    words = ["b/rgb.mp4", "# of today", "", str(tmp_path / "a" / "rgb.mp4")]
    for encoding in ("utf-8", "utf-8-sig"):  # the second one of editors on Windows
        (tmp_path / "list.txt").write_text("\n".join(words), encoding=encoding)
        found = find_clips(tmp_path / "list.txt")
        assert found == {"b/rgb": tmp_path / "b/rgb.mp4", "a/rgb": tmp_path / "a/rgb.mp4"}


@pytest.mark.parametrize(
    "text, words",
    [
        ("# none", "got none"),
        ("a.mp4\n./a.mp4", "a.mp4 twice"),
        (None, "does not exist"),
        ("größe.mp4", "list.txt: expected UTF-8 text"),
    ],
)
def test_a_wrong_list_is_an_error(tmp_path, text, words):
    if text is not None:
        (tmp_path / "list.txt").write_text(text, encoding="latin-1")
    with pytest.raises((FileNotFoundError, ValueError), match=words):
        find_clips(tmp_path / "list.txt")


def reconstruct_clips(rank: int, words: list[str], folder: Path) -> None:
    """Leaves the exit status of a process and its output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = main(words)
    (folder / f"{rank}.json").write_text(json.dumps([status, output.getvalue()]), encoding="utf-8")


def test_two_processes_share_the_clips_and_a_failure_stops_none(clips, options, tmp_path):
    out = tmp_path / "out"
    words = ["reconstruct", str(clips), "--clips", "--out", str(out), *options, "--max-frames", "2"]
    run_together(reconstruct_clips, words, tmp_path)
    ended = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert [status for status, _ in ended] == [1, 0]
    assert statuses(out) == {"take 2": "done", "take 9": "failed", "take 10": "done"}
    assert "3 clips: 2 done, 1 failed" in ended[0][1] and "take 9.mp4: " in ended[0][1] + ended[1][1]
    for name in ("take 2", "take 10"):
        assert json.loads((out / name / "run.json").read_text(encoding="utf-8"))["frames"]["done"] == 2


def test_finished_clips_are_left_alone_and_the_network_is_loaded_once(clips, command, options, tmp_path, monkeypatch):
    loads, runs = [], []
    load, reconstruct = program.load_model, program.reconstruct
    monkeypatch.setattr("streamvggt.cli.batch.load_model", lambda *a, **k: loads.append(a) or load(*a, **k))
    monkeypatch.setattr(program, "reconstruct", lambda one, *rest: runs.append(one.out.name) or reconstruct(one, *rest))
    words = ["reconstruct", clips, "--clips", "--out", tmp_path / "out", *options, "--max-frames", "2"]
    status, text = command(*words)
    assert status == 1 and "frames/s" in text
    assert runs == ["take 2", "take 9", "take 10"] and len(loads) == 1
    assert "[2/3] " in text and "trajectory.txt" not in text
    status, text = command(*words)
    assert status == 1 and "already contains results of 2 clips, the first is take 2. Use --resume" in text
    assert statuses(tmp_path / "out")["take 2"] == "done"

    shutil.rmtree(tmp_path / "out" / "take 9", ignore_errors=True)
    (clips / "take 9.mp4").unlink()
    shutil.copytree(clips / "take 2", clips / "take 9")
    runs.clear()
    assert command(*words, "--resume")[0] == 0
    assert runs == ["take 9"]
    assert statuses(tmp_path / "out") == {"take 2": "done", "take 9": "done", "take 10": "done"}
    status, text = command(*words, "--resume", "--size", "28")
    assert status == 1 and set(statuses(tmp_path / "out").values()) == {"failed"} and "other settings" in text


@pytest.mark.parametrize("content", ['{"frames": []}', '{"command": null}', "[" * 100_000, '{"timings": 3}'])
def test_a_damaged_record_is_no_finished_result(tmp_path, content):
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    assert not is_finished(tmp_path, []) and read_report(tmp_path, "failed", "why").num_frames == 0


def test_clips_without_the_flag_are_an_error_that_names_it(clips, command, tmp_path):
    (tmp_path / "list.txt").write_text("clips/take 2", encoding="utf-8")
    for source in (clips, tmp_path / "list.txt"):
        status, text = command("reconstruct", source, "--out", tmp_path / "out")
        assert status == 1 and "To reconstruct all clips, use --clips." in text


def test_weights_that_cannot_be_loaded_end_the_run_at_once(clips, command, tmp_path):
    status, text = command("reconstruct", clips, "--clips", "--out", tmp_path / "out", "--weights", tmp_path / "none")
    assert status == 1 and text.count("error: ") == 1


def test_the_default_output_has_the_name_of_the_input(tmp_path):
    assert default_output_dir("videos/a clip.mp4") == Path("results/a_clip")
    assert default_output_dir(str(ROOT)) == Path("results") / ROOT.name
    assert default_output_dir("rtsp://camera.local/stream") == Path("results/stream")
    assert default_output_dir("0") == Path("results/0")
    assert default_output_dir(os.fspath(tmp_path / "*.jpg")) == Path("results/stream")
