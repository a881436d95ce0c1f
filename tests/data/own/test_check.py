"""`streamvggt data check` on scenes of one's own."""

import numpy as np
import pytest
from own_scenes import (
    OPENGL_FROM_OPENCV,
    save_transforms,
    world_clips,
    write_colmap,
    write_images,
    write_transforms,
    write_tum,
)

from streamvggt.cli import main


@pytest.fixture(scope="module")
def clip():
    return world_clips(1, 6, 60, 80, seed=3, fov=1.2)[0]


@pytest.fixture
def checked(tmp_path, capsys):
    def run(*words):
        status = main(["data", "check", str(tmp_path / "scans"), "--out", str(tmp_path / "check.png"), *words])
        return status, capsys.readouterr().out.replace(str(tmp_path), "")

    return run


def test_good_scenes_are_good(clip, tmp_path, checked):
    for write, name in ((write_transforms, "a"), (write_colmap, "b"), (write_tum, "c"), (write_images, "d")):
        write(tmp_path / "scans" / name, clip)
    status, output = checked()
    assert status == 0, output
    for start in (
        "ok    a (transforms.json, cameras and depth): ",
        "ok    b (COLMAP, cameras and depth): ",
        "ok    c (TUM RGB-D, cameras and depth): ",
        "ok    d (images, no labels (for distillation)): ",
    ):
        assert start in output
    assert output.count("views agree") == 3
    assert (tmp_path / "check.png").exists()


def spoiled_poses(content, change):
    for entry in content["frames"]:
        entry["transform_matrix"] = change(np.array(entry["transform_matrix"])).tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda pose: pose @ OPENGL_FROM_OPENCV,  # OpenCV axes, where OpenGL's are expected
        lambda pose: np.linalg.inv(pose),  # camera-from-world
    ],
)
def test_wrong_poses_are_noticed(clip, tmp_path, checked, change):
    content = write_transforms(tmp_path / "scans", clip)
    spoiled_poses(content, change)
    save_transforms(tmp_path / "scans", content)
    status, output = checked()
    assert status == 1
    assert "VIEWS DISAGREE" in output or "expected neighboring frames that overlap, got none" in output


def test_a_wrong_depth_unit_is_noticed_and_can_be_given(clip, tmp_path, checked):
    write_transforms(tmp_path / "scans", clip)
    assert checked("--depth_unit", "0.0001")[0] == 1
    assert checked("--depth_unit", "0.001")[0] == 0


def test_a_bad_scene_does_not_hide_the_others(clip, tmp_path, checked):
    write_transforms(tmp_path / "scans/a", clip)
    (tmp_path / "scans/a/images/frame_00003.png").unlink()
    write_colmap(tmp_path / "scans/b", clip)
    (tmp_path / "scans/b/stereo/depth_maps/0002.png.geometric.bin").write_bytes(b"80&60&1&")
    write_tum(tmp_path / "scans/c", clip)
    status, output = checked()
    assert status == 1
    assert "BAD   a: /scans/a/transforms.json: frames[2].file_path: expected an image, got no file" in output
    assert "BAD   b (COLMAP" in output and "0002.png.geometric.bin: expected a depth map of COLMAP" in output
    assert "ok    c (TUM" in output


def test_a_scene_whose_frames_do_not_overlap(clip, tmp_path, checked):
    content = write_transforms(tmp_path / "scans", clip)
    for number, entry in enumerate(content["frames"]):
        entry["transform_matrix"][0][3] += 1000 * number
    save_transforms(tmp_path / "scans", content)
    status, output = checked()
    assert status == 1 and "the depth looks too small for the poses, or the frames show different places" in output


def test_nothing_to_check_is_an_error(tmp_path, checked):
    (tmp_path / "scans").mkdir()
    assert checked()[0] == 1
