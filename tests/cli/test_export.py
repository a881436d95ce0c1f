"""`streamvggt export`: files from a result, without the network."""

import json

import numpy as np
import pytest
import trimesh

from streamvggt.model.vggt import VGGT


@pytest.fixture
def result(reconstruct, photos, tmp_path, monkeypatch):
    assert reconstruct(photos, "--max-frames", 4)[0] == 0
    monkeypatch.delattr(VGGT, "forward")  # no network from here on
    return tmp_path / "out"


def num_points(path) -> int:
    return len(trimesh.load(path).vertices)


def test_exports_go_into_the_result(command, result):
    status, said = command("export", result)
    assert status == 0 and str(result / "scene.glb") in said and str(result / "points.ply") in said
    assert num_points(result / "points.ply") == pytest.approx(0.5 * 4 * 42 * 56, rel=0.02)


def test_the_filters(command, result, tmp_path):
    pixels = 42 * 56
    for more, expected in (
        (["--conf", 0], 4 * pixels),
        (["--conf", 0, "--frames", "1:3"], 2 * pixels),
        (["--conf", 0, "--frames", "::2", "--max-points", 100], 100),
        (["--conf", 75], pixels),
    ):
        assert command("export", result, "--out", tmp_path / "other", "--export", "ply", *more)[0] == 0
        assert num_points(tmp_path / "other" / "points.ply") == pytest.approx(expected, rel=0.02)
    assert not (result / "points.ply").exists()


def test_all_exports_into_another_folder(command, result, tmp_path):
    before = sorted(result.rglob("*"))
    other = tmp_path / "made" / "for" / "it"
    for _ in range(2):  # the second time replaces what the first one wrote
        assert command("export", result, "--out", other, "--export", "glb,ply,colmap,tum,depth,video")[0] == 0
    names = {path.name for path in other.iterdir()}
    assert names == {"scene.glb", "points.ply", "colmap", "trajectory.txt", "depth", "preview.mp4"}
    assert sorted(result.rglob("*")) == before


def test_an_unfinished_result_can_be_exported(command, result):
    (result / "frames" / "000003.npz").unlink()
    (result / "run.json").unlink()
    assert command("export", result, "--export", "tum")[0] == 0
    assert np.loadtxt(result / "trajectory.txt").shape == (3, 8)


def test_a_folder_of_the_user_is_not_replaced(command, result, tmp_path):
    """Data sets have a depth/ of their own, and COLMAP users a colmap/."""
    for name in ("depth", "colmap"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "precious").touch()
        status, said = command("export", result, "--out", tmp_path / "set", "--export", name)
        assert status == 1 and f"{name} was not made by this program" in said
        assert (tmp_path / "set" / name / "precious").exists()


@pytest.mark.parametrize(
    "more, words",
    [
        (["--export", "stl"], "'stl' is unknown; choose of glb,ply,colmap,tum,depth,video, or none"),
        (["--points", "head"], "--points head needs the point head: add points to --heads"),
        (["--conf", "100"], "at least 0 and below 100, not 100"),
        (["--frames", "9:12"], "none of the 4 frames is in the range (9, 12, None)"),
        (["--frames", "::-1"], "the step between frames is at least 1, not -1"),
        (["--max-points", "0"], "at least one point must be allowed"),
        (["--out", "{result}/run.json"], "run.json is a file, a folder was expected"),
    ],
)
def test_what_cannot_be_exported_is_explained(command, result, more, words):
    status, said = command("export", result, *[word.format(result=result) for word in more])
    assert status in (1, 2) and words in said and "Errno" not in said


def test_a_folder_that_is_no_result(command, photos, result):
    status, said = command("export", photos)
    assert status == 1 and "is not a result: there is no finished frame" in said
    (result / "frames" / "000001.npz").write_bytes(b"half")
    status, said = command("export", result)
    assert status == 1 and "cannot read" in said and "000001.npz" in said


def test_the_record_of_the_run_stays(command, result):
    before = json.loads((result / "run.json").read_text(encoding="utf-8"))
    command("export", result)
    assert json.loads((result / "run.json").read_text(encoding="utf-8")) == before
