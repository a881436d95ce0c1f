"""`streamvggt data …`, as a user would."""

import shutil

import numpy as np
import pytest
from PIL import Image

from streamvggt.cli import main
from streamvggt.datasets._fixtures import MARK, are_fixtures


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    words = [
        "data",
        "make-fixtures",
        str(root),
        "spring",
        "virtual_kitti2",
        "sintel",
        "--frames",
        "12",
        "--size",
        "60",
        "80",
    ]
    assert main(words) == 0
    return root


def test_check_reports_and_draws_the_data(fixtures, command, tmp_path):
    status, output = command("data", "check", fixtures, "--out", tmp_path / "check.png")
    assert status == 0
    for name in ("spring", "virtual_kitti2"):
        assert f"ok    {name}: 2 scenes, 24 frames, 24 frames read, views agree in 2 scenes: " in output
    assert "ok    sintel: 2 scenes, 24 frames" in output and "not there: arkitscenes (processed_arkitscenes)" in output
    assert Image.open(tmp_path / "check.png").size[0] > 200


def test_check_names_what_is_wrong(fixtures, command, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(fixtures, root)
    bad = root / "spring/0001/rgb/0003.png"
    bad.write_bytes(bad.read_bytes()[:100])
    (root / "spring/0002/depth/0004.npy").unlink()
    for path in root.glob("processed_vkitti/*/*/*/*.npz"):
        camera = dict(np.load(path))
        np.savez(path, **{**camera, "camera_pose": np.linalg.inv(camera["camera_pose"])})
    status, output = command("data", "check", root, "--frames", "all", "--out", tmp_path / "check.png")
    assert status == 1
    assert f"{bad}: the image is cut off after 100 bytes" in output
    assert str(root / "spring/0002/depth/0004.npy") in output
    assert "BAD   virtual_kitti2" in output and "VIEWS DISAGREE" in output


def test_check_of_a_missing_or_misnamed_set(fixtures, command, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(fixtures / "spring", root / "processed_spring")
    status, output = command("data", "check", root, "spring", "--out", tmp_path / "check.png")
    assert status == 1 and f"BAD   spring: no folder at {root / 'spring'}" in output
    assert "processed_spring; if it should, rename it to spring" in output
    assert "unknown; choose from" in command("data", "check", root, "sping")[1]
    assert "no folder at" in command("data", "check", tmp_path / "nowhere")[1]


SMALL = ["size=56", "num_frames=[3,3]", "max_images_per_process=3", "data.on_missing=skip"]


def test_preview_shows_a_sample_of_each_data_set_and_its_time(fixtures, command, tmp_path):
    words = ["data", "preview", "train", f"data_root={fixtures}", *SMALL, "--out", tmp_path / "preview.png"]
    status, output = command(*words)
    assert status == 0, output
    assert "training without 13 of 15 data sets" in output
    assert "  spring: 1800 samples per epoch (44.4%)" in output and "to load a sample:" in output
    assert Image.open(tmp_path / "preview.png").size[0] > 200


def test_preview_of_the_procedural_world(command, tmp_path):
    words = [
        "data",
        "preview",
        "train",
        "data=synthetic",
        *SMALL[:3],
        "--batches",
        "1",
        "--out",
        tmp_path / "preview.png",
    ]
    assert command(*words)[0] == 0 and (tmp_path / "preview.png").exists()


def test_preview_names_the_error_of_a_config(command, tmp_path):
    assert "no configuration 'trian'" in command("data", "preview", "trian")[1]
    status, output = command("data", "preview", "train", f"data_root={tmp_path}")
    assert status == 1 and "no data set was found" in output and "docs/data.md describes" in output
    assert "Could not override 'nonsense'" in command("data", "preview", "train", "nonsense=1")[1]


def test_prepare_names_the_expected_files_of_a_download(command, tmp_path):
    status, output = command("data", "prepare", "spring")
    assert status == 0 and "disp1_left" in output
    status, output = command("data", "prepare", "spring", tmp_path)
    assert status == 1 and "name ROOT, too" in output
    status, output = command("data", "prepare", "spring", tmp_path, tmp_path / "out")
    assert status == 1 and "contains nothing to prepare. Expected:" in output
    assert not (tmp_path / "out").exists()


def test_all_fixtures_are_marked(tmp_path):
    assert main(["data", "make-fixtures", str(tmp_path), "--frames", "4", "--size", "30", "40"]) == 0
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) > 20 and all((folder / MARK).is_file() for folder in folders)
    assert are_fixtures(tmp_path / "sintel/training/final") and not are_fixtures(tmp_path)
