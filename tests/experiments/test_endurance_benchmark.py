"""The endurance benchmark: resumed streams are compared with an uninterrupted one, and short runs have a table."""

import sys

import pytest
from benchmark_runs import load


@pytest.mark.parametrize("memory", ["window:1,8", "pool"])
def test_a_resumed_stream_equals_an_uninterrupted_one(memory, tmp_path, monkeypatch):
    child, parent = load("endurance_stream", monkeypatch), load("endurance", monkeypatch)
    for name, lengths in (("whole", [8]), ("killed", [5, 8])):
        (tmp_path / name).mkdir()
        for num_frames in lengths:  # the state of frame 3 is the last one on disk when the killed stream starts again
            child.stream(memory, num_frames, 3, tmp_path / name)
    compared = parent.compare(tmp_path / "whole", tmp_path / "killed")
    assert compared == {"frames": 8, "again": 2, "different": 0}
    data = bytearray((tmp_path / "killed/answers.bin").read_bytes())
    data[-1] ^= 1
    (tmp_path / "killed/answers.bin").write_bytes(data)
    assert parent.compare(tmp_path / "whole", tmp_path / "killed")["different"] == 1


def test_one_measurement_is_enough_for_a_row(monkeypatch):
    note = {"frame": 500, "ms": 2.5, "rss": 3e8, "files": 7, "threads": 2, "objects": 9, "memory": 4000}
    kills, compared = {"at any moment": 1, "while saving": 2}, {"frames": 100, "again": 5, "different": 0}
    row = load("endurance", monkeypatch).row("pool", [note], 4, kills, compared)
    cells = ["`pool`", "2,000", "2.50 to 2.50 (±0.0 %)", "300.0", "7", "2", "9", "4.0", "1 + 2", "400 + 20", "0"]
    assert row == f"| {' | '.join(cells)} |"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frames", "100"], "--frames: expected a whole number from 2000"),
        (["--frames", "2000", "--killed-frames", "2001"], "--killed-frames: expected at most --frames=2000, got 2001"),
    ],
)
def test_runs_that_are_too_short_are_rejected(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["endurance.py", *words])
    with pytest.raises(SystemExit, match="2"):
        load("endurance", monkeypatch).main()
    assert message in capsys.readouterr().err
