"""`streamvggt export`: files from a result, without the network."""

import json
import os

import numpy as np
import pytest
import trimesh

from streamvggt.export import EXPORTERS
from streamvggt.folder_lock import FolderLock
from streamvggt.model.vggt import VGGT


@pytest.fixture
def result(reconstruct, photos, tmp_path, monkeypatch):
    assert reconstruct(photos, "--max-frames", 4)[0] == 0
    monkeypatch.delattr(VGGT, "step")  # no network from here on
    return tmp_path / "out"


def num_points(path) -> int:
    return len(trimesh.load(path).vertices)


def test_exports_go_into_the_result(command, result):
    status, output = command("export", result, "--no-edge-mask")
    assert status == 0 and str(result / "scene.glb") in output and str(result / "points.ply") in output
    assert num_points(result / "points.ply") == pytest.approx(0.5 * 4 * 42 * 56, rel=0.02)


def test_the_filters(command, result, tmp_path):
    pixels = 42 * 56
    for more, expected in (
        (["--conf-percentile", 0], 4 * pixels),
        (["--conf-percentile", 0, "--frames", "1:3"], 2 * pixels),
        (["--conf-percentile", 0, "--frames", "::2", "--max-points", 100], 100),
        (["--conf-percentile", 75], pixels),
    ):
        assert (
            command("export", result, "--out", tmp_path / "other", "--formats", "ply", "--no-edge-mask", *more)[0] == 0
        )
        assert num_points(tmp_path / "other" / "points.ply") == pytest.approx(expected, rel=0.02)
    assert not (result / "points.ply").exists()


def test_all_exports_into_another_folder(command, result, tmp_path):
    before = sorted(result.rglob("*"))
    other = tmp_path / "made" / "for" / "it"
    for _ in range(2):  # the second time replaces what the first one wrote
        status, output = command("export", result, "--out", other, "--formats", "colmap,glb,ply,tum,depth,video")
        # The untrained network puts no point where two photos of noise see it.
        assert status == 1 and output.count("error: ") == 1
        assert "--formats colmap: no point is seen by two frames" in output and str(other / "colmap") in output
    names = {path.name for path in other.iterdir()}
    assert names == {"scene.glb", "points.ply", "colmap", "trajectory.txt", "depth", "preview.mp4"}
    assert sorted(result.rglob("*")) == before


def test_an_unfinished_result_can_be_exported(command, result):
    (result / "frames" / "000003.npz").unlink()
    (result / "run.json").unlink()
    assert command("export", result, "--formats", "tum")[0] == 0
    assert np.loadtxt(result / "trajectory.txt").shape == (3, 8)


def test_two_exports_do_not_write_into_one_folder(command, result, tmp_path):
    with FolderLock(tmp_path / "other"):
        status, output = command("export", result, "--out", tmp_path / "other", "--formats", "tum")
        assert status == 1 and f"is held by process {os.getpid()} on" in output
    assert command("export", result, "--out", tmp_path / "other", "--formats", "tum")[0] == 0


def test_a_folder_in_the_place_of_a_file_is_named(command, result):
    (result / "points.ply").mkdir()
    status, output = command("export", result, "--formats", "ply")
    assert status == 1 and "points.ply: expected a file to replace, got a folder" in output and "Errno" not in output
    assert not [path for path in result.iterdir() if ".part" in path.name]


def test_a_folder_of_the_user_is_not_replaced(command, result, tmp_path):
    """Data sets have a depth/ of their own, and COLMAP users a colmap/."""
    for name in ("depth", "colmap"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "precious").touch()
        status, output = command("export", result, "--out", tmp_path / "set", "--formats", name)
        assert status == 1 and f"{name} was not made by this program" in output
        assert (tmp_path / "set" / name / "precious").exists()


@pytest.mark.parametrize(
    "more, words",
    [
        (
            ["--formats", "stl"],
            "'stl' is unknown; choose from glb,ply,colmap,tum,depth,video,extra,mesh,nerfstudio,rerun, or none",
        ),
        (["--point-source", "head"], "--point-source head needs the point head: add points to --heads"),
        (["--conf-percentile", "100"], "at least 0 and below 100, not 100"),
        (["--frames", "5:2"], "no frame of any result is in the range (5, 2, None)"),
        (["--frames", "9:12"], "none of the 4 frames is in the range (9, 12, None)"),
        (["--frames", "::-1"], "the step between frames is at least 1, not -1"),
        (["--max-points", "0"], "--max-points: expected a whole number from 1"),
        (["--formats", "ply", "--bundle-adjust"], "--bundle-adjust changes only --formats colmap: add colmap"),
        (["--formats", "ply", "--full-resolution"], "--full-resolution changes only --formats depth: add depth"),
        (["--out", "{result}/run.json"], "run.json is a file, a folder was expected"),
    ],
)
def test_what_cannot_be_exported_is_explained(command, result, more, words):
    status, output = command("export", result, *[word.format(result=result) for word in more])
    assert status in (1, 2) and words in output and "Errno" not in output


def test_a_folder_that_is_no_result(command, photos, result):
    status, output = command("export", photos)
    assert status == 1 and "is not a result: no finished frame" in output
    (result / "frames" / "000001.npz").write_bytes(b"half")
    status, output = command("export", result)
    assert status == 1 and "cannot read" in output and "000001.npz" in output


def changed(path, **fields) -> None:
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **fields})


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "a/b", "a\\b", "C:x", "", "a\nb"])
def test_a_name_that_leads_out_of_the_folder_is_refused(command, result, tmp_path, name):
    changed(result / "frames" / "000002.npz", name=name)
    before = sorted(tmp_path.rglob("*"))
    for kind in ("depth", "colmap", "tum"):
        status, output = command("export", result, "--formats", kind)
        assert status == 1 and "000002.npz" in output and f"expected a plain file name, got {name!r}" in output
    assert sorted(tmp_path.rglob("*")) == before


def test_damage_is_noticed_whatever_is_exported(command, result):
    """The trajectory needs no depth, but a damaged result is not passed on silently."""
    path = result / "frames" / "000001.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"depth.npy") + 5000] ^= 1  # in the numbers
    path.write_bytes(content)
    status, output = command("export", result, "--formats", "tum")
    assert status == 1 and "cannot read" in output and "000001.npz" in output and "continue with --resume" in output


def test_a_missing_image_is_reported_and_stops_what_needs_it(command, result):
    (result / "images" / "photo_2.jpg").unlink()
    status, output = command("export", result, "--formats", "tum")
    assert status == 0 and "1 of 4 images cannot be used" in output and "photo_2.jpg is missing" in output
    status, output = command("export", result, "--formats", "colmap,ply")
    assert status == 1 and "error: --formats colmap: 1 of 4 images cannot be used" in output
    assert (result / "points.ply").exists() and not (result / "colmap").exists()


def test_without_depth_the_rest_is_written(command, result, tmp_path):
    for path in (result / "frames").iterdir():
        changed(path, depth=np.full((42, 56), np.nan, np.float32))
    other = tmp_path / "other"
    status, output = command("export", result, "--out", other, "--formats", "glb,ply,colmap,depth,video,tum")
    assert status == 1
    for kind in ("glb", "ply", "colmap"):
        assert f"error: --formats {kind}: no points are left" in output
    for kind in ("depth", "video"):
        assert f"error: --formats {kind}: no frame has a depth" in output
    assert {path.name for path in other.iterdir()} == {"scene.glb", "colmap", "preview.mp4", "trajectory.txt"}


def test_an_export_that_fails_does_not_stop_the_others(command, result, monkeypatch):
    def broken(*_):
        raise RuntimeError("Unable to cast Python instance")

    monkeypatch.setitem(EXPORTERS, "colmap", broken)
    status, output = command("export", result, "--formats", "colmap,ply")
    assert status == 1 and "error: --formats colmap: Unable to cast" in output and (result / "points.ply").exists()


def test_the_record_of_the_run_stays(command, result):
    before = json.loads((result / "run.json").read_text(encoding="utf-8"))
    command("export", result)
    assert json.loads((result / "run.json").read_text(encoding="utf-8")) == before
