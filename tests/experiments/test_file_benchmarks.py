"""The benchmarks of exports and of decoding do the work that their tables name, at a small size."""

import contextlib

import pytest
from benchmark_runs import load, rows, run


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Originals of 192×108, input of the network of 112×70. The working folder of the benchmark is kept."""
    for script in ("pipeline", "exports", "decoding"):
        module = load(script, monkeypatch)
        for name, value in (("WIDTH", 192), ("HEIGHT", 108), ("SIZE", 112)):
            monkeypatch.setattr(module, name, value)
    (tmp_path / "work").mkdir()
    folder = contextlib.nullcontext(str(tmp_path / "work"))
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda: folder)
    return tmp_path


def test_every_export_is_written_and_has_a_row(small, monkeypatch):
    table = run("exports", monkeypatch, "--frames", 3, "--out", small / "table.md")
    exports = load("exports", monkeypatch)
    assert "Exports of 3 frames of 112×70, originals of 192×108, in 1 thread." in table
    assert "`python benchmarks/exports.py --frames 3" in table
    found = rows(table)
    default = "`glb,ply,tum,depth,video` (default of `reconstruct`)"
    parts = ["reading of all frames", "confidence threshold", "color ranges of the video", "point cloud"]
    names = [*exports.DEFAULT, *exports.OTHERS]
    assert list(found) == ["export", *parts, *(f"`{name}`" for name in names), default]
    assert set(names) == set(exports.EXPORTERS) - {"extra"}  # of heads that the result does not have
    assert all(float(cell) >= 0 for name, cells in found.items() if name != "export" for cell in cells)
    assert all(float(found[f"`{name}`"][1]) > 0 for name in ("glb", "ply", "depth", "video"))
    work = small / "work"
    assert all(any(path.stat().st_size for path in (work / name).rglob("*") if path.is_file()) for name in names)
    assert {path.suffix for path in (work / "default").iterdir()} >= {".glb", ".ply", ".mp4"}


def test_decoding_compares_every_filter_with_the_input_of_the_network(small, monkeypatch):
    table = run("decoding", monkeypatch, "--frames", 2, "--rounds", 1, "--out", small / "table.md")
    assert "2 frames of 192×108 to 112×70, one thread. Minimum of 1 repetitions." in table
    found = rows(table)
    assert len(found) == 10 and all(float(cells[0]) >= 0 for name, cells in found.items() if name != "stage")
    same = found["RGB to the input of the network (Pillow, bicubic)"]
    assert same[1:] == ["0.000", "0", "0.00%"]
    for name, cells in found.items():
        if "fast-resize" in name or "swscale" in name:
            mean, largest, changed = float(cells[1]), int(cells[2]), float(cells[3].rstrip("%"))
            assert 0 < mean < 10 and mean <= largest <= 255 and 0 < changed <= 100, name
    assert all(found[name][1:] == ["", "", ""] for name in ("decode H.264", "YUV to RGB", "original image to JPEG"))
