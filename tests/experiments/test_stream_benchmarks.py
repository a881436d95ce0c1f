"""The benchmarks of long streams run from the command to the table, at a small size."""

import pytest
from benchmark_runs import run


@pytest.fixture
def small(monkeypatch, tmp_path):
    return tmp_path, "--frames", 24, "--image-size", 32, 48, "--folder", tmp_path, "--out", tmp_path / "table"


def test_long_streams(small, monkeypatch):
    folder, *options = small
    options += ["--kinds", "loop", "--scenes", 1, "--lengths", 12, 24, "--policies", "all", "frame-diversity:9"]
    table = run("long_streams", monkeypatch, *options, "--pictures", "all")
    assert "| `all` | 264 (24.0) |" in table and "| `frame-diversity:9` | 99 (9.0) |" in table
    assert (folder / "table.png").stat().st_size > 10_000 and (folder / "table-loop.jpg").stat().st_size > 10_000
    again = run("long_streams", monkeypatch, *options, "--tables-only")
    assert again.split("`python")[0] == table.split("`python")[0]


def test_submaps(small, monkeypatch):
    folder, *options = small
    table = run("submaps", monkeypatch, *options, "--videos", "loop:8")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| submaps 16,4 of all")]
    assert [row[13] for row in rows] == ["2", "2", "2", "2"]  # submaps of the network and the simulated model
    assert (folder / "table.png").stat().st_size > 10_000
    assert all(len(line) <= 120 for line in table.split("`python")[0].splitlines() if not line.startswith("|"))
