"""Errors in custom scenes name the file and the field in one line."""

import json

import numpy as np
import pytest
from own_scenes import save_transforms, world_clips, write_colmap, write_transforms, write_tum

from streamvggt.data.decode import DataError
from streamvggt.data.own.frame import read_frame
from streamvggt.data.own.scene import read_scene


@pytest.fixture(scope="module")
def clip():
    return world_clips(1, 3, 60, 80, seed=3, fov=1.2)[0]


def read(folder):
    return [read_frame(frame) for frame in read_scene(folder)]


def spoiled(key, value):
    def spoil(folder, content):
        content["frames"][1][key] = value
        save_transforms(folder, content)

    return spoil


def removed(name):
    return lambda folder, content: (folder / name).unlink()


POSE = np.eye(4)
NAN_POSE, SCALED_POSE = POSE.copy(), POSE.copy()
NAN_POSE[0, 3] = np.nan
SCALED_POSE[:3, :3] *= 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            removed("images/frame_00002.png"),
            r"transforms\.json: frames\[1\]\.file_path: expected an image, got no file",
        ),
        (removed("depth/frame_00002.png"), r"frames\[1\]\.depth_file_path: expected a file, got 'depth/frame_00002"),
        (spoiled("camera_model", "EQUIRECTANGULAR"), r"frames\[1\]\.camera_model: expected .*, got 'EQUIRECTANGULAR'"),
        (spoiled("transform_matrix", NAN_POSE.tolist()), r"frames\[1\]\.transform_matrix: "),
        (spoiled("transform_matrix", SCALED_POSE.tolist()), r"frames\[1\]\.transform_matrix: "),
        (spoiled("transform_matrix", None), r"frames\[1\]\.transform_matrix: "),
        (spoiled("transform_matrix", "eye"), r"frames\[1\]\.transform_matrix: "),
        (
            spoiled("file_path", "images/frame_00001.png"),
            r"expected every frame once, got images/frame_00001\.png several",
        ),
        (spoiled("fl_x", None), r"frames\[1\]\.fl_x: expected a finite number, got None"),
        (spoiled("fl_x", -5), r"frames\[1\]: expected positive focal lengths, got \[-5"),
        (spoiled("w", 0), r"frames\[1\]: expected the width and height of the image in pixels, got \(0, 60\)"),
        (spoiled("w", 81), r"frame_00002\.png: expected 81×60 pixels as its intrinsics say, got 80×60"),
    ],
)
def test_bad_transforms_are_named(clip, tmp_path, spoil, message):
    spoil(tmp_path, write_transforms(tmp_path, clip[:3]))
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_frames_at_all_are_named(tmp_path):
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": 3}), encoding="utf-8")
    with pytest.raises(DataError, match="frames: expected a list of frames, got 3"):
        read(tmp_path)


def damage(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        (
            "bin",
            lambda f: damage(f / "sparse/images.bin", lambda b: b[: len(b) // 2]),
            "sparse: expected cameras, images",
        ),
        (
            "bin",
            lambda f: damage(f / "sparse/cameras.bin", lambda b: b[:12] + b"\x63" + b[13:]),
            "Camera model does not",
        ),
        (
            "txt",
            lambda f: damage(f / "sparse/cameras.txt", lambda b: b.replace(b"PINHOLE", b"FOO")),
            "Camera model does",
        ),
        ("txt", lambda f: (f / "images/0002.png").unlink(), r"sparse: image 0002\.png: expected an image, got no file"),
        (
            "txt",
            lambda f: damage(f / "sparse/cameras.txt", lambda b: b.replace(b" 80 60 ", b" 81 60 ")),
            "expected 81×60",
        ),
        (
            "txt",
            lambda f: damage(f / "stereo/depth_maps/0001.png.geometric.bin", lambda b: b[:-4]),
            "depth map of COLMAP",
        ),
    ],
)
def test_bad_models_of_colmap_are_named(clip, tmp_path, kind, spoil, message):
    write_colmap(tmp_path, clip[:3], kind)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def write(path, text):
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "calibration.txt").unlink(), r"calibration\.txt: expected a file with fx fy cx cy"),
        (lambda f: write(f / "calibration.txt", "1 2 3"), r"calibration\.txt: expected numbers fx fy cx cy"),
        (lambda f: write(f / "calibration.txt", "1 2 3 4 5"), r"expected 4, 8 or 9 numbers .*, got 5"),
        (lambda f: write(f / "rgb.txt", "x rgb/1.png"), r"rgb\.txt: line 1: expected a time in seconds, got 'x'"),
        (lambda f: damage(f / "rgb.txt", lambda b: b"\xff" + b), r"rgb\.txt: expected UTF-8 text"),
        (lambda f: write(f / "groundtruth.txt", "1 2 3"), r"groundtruth\.txt: line 1: expected a time and 7 values"),
        (lambda f: write(f / "groundtruth.txt", "1 0 0 0 0 0 0 1"), r"expected times of rgb\.txt, depth\.txt"),
        (lambda f: next((f / "rgb").iterdir()).unlink(), r"rgb\.txt: rgb/.*: expected an image, got no file"),
        (
            lambda f: damage(f / "groundtruth.txt", lambda b: b.replace(b" 0.", b" nan ", 1)[:-1]),
            r"groundtruth\.txt: ",
        ),
    ],
)
def test_bad_tum_folders_are_named(clip, tmp_path, spoil, message):
    write_tum(tmp_path, clip[:3])
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.mp4: expected a video, got a file without frames"):
        read_scene(tmp_path / "a.mp4")
