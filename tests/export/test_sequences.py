"""What is written frame by frame: trajectory, depth maps, video; and files that are whole or not there."""

import json
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec

import av
import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from streamvggt.export import EXPORTERS, ExportOptions
from streamvggt.export.depth import quantize
from streamvggt.export.video import colorize, frame_rate
from streamvggt.files import atomic_directory, atomic_write
from streamvggt.prediction import Prediction


def test_trajectory_is_the_inverse_of_the_poses(scene, result):
    streamed = (result.folder / "trajectory.txt").read_text(encoding="utf-8")
    path = EXPORTERS["tum"](result, result.folder, ExportOptions())
    assert path.read_text(encoding="utf-8") == streamed  # the same from the stream and from the files
    table = np.loadtxt(path)
    np.testing.assert_allclose(table[:, 0], [1, 1.25, 1.5, 1.75, 2])
    for row, pose in zip(table, scene.poses, strict=True):
        rotation = Rotation.from_quat(row[4:]).as_matrix()  # x, y, z, w
        np.testing.assert_allclose(rotation, pose[:, :3].T, atol=1e-8)
        np.testing.assert_allclose(row[1:4], -pose[:, :3].T @ pose[:, 3], atol=1e-8)


def test_frames_without_a_time_are_counted(make_scene, tmp_path):
    make_scene(3, timed=False).write(tmp_path)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "trajectory.txt")[:, 0], [0, 1, 2])


def test_depth_pictures_times_scale_are_the_depth(scene, result):
    folder = EXPORTERS["depth"](result, result.folder, ExportOptions())
    scale = json.loads((folder / "scale.json").read_text(encoding="utf-8"))["scale"]
    largest = 0
    for frame in result:
        picture = cv2.imread(str(folder / f"{frame.name}.png"), cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint16 and picture.shape == (42, 56)
        inside = (slice(6, 36), slice(8, 48))
        assert np.abs(picture[inside] * scale - frame.depth[inside]).max() <= scale / 2 * 1.001
        assert np.count_nonzero(picture) == 30 * 40  # nothing in the padding
        largest = max(largest, picture.max())
        with np.load(folder / f"{frame.name}.npz") as arrays:
            np.testing.assert_array_equal(arrays["depth"][inside], frame.depth[inside])
            np.testing.assert_array_equal(arrays["conf"][inside], frame.depth_conf[inside])
            np.testing.assert_array_equal(arrays["intrinsics"], frame.intrinsics)
            assert arrays["depth"].dtype == np.float32
            np.testing.assert_array_equal(arrays["depth"] > 0, picture > 0)
    assert largest == 65535


def test_a_tiny_depth_is_not_taken_for_none():
    np.testing.assert_array_equal(quantize(np.array([[0, 1e-9, 2.4, 9]]), 1.0), [[0, 1, 2, 9]])


def test_video_plays_every_frame(scene, result):
    path = EXPORTERS["video"](result, result.folder, ExportOptions())
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 4  # a frame each quarter second
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(pictures) == 5 and {picture.shape for picture in pictures} == {(42, 3 * 56, 3)}
    for picture, frame in zip(pictures, result, strict=True):
        image, depth = picture[:, :56], picture[:, 56:112]
        assert np.abs(image.astype(int) - frame.image).mean() < 8
        assert depth[:5].max() < 40  # padding is black


def test_odd_sizes_and_single_frames_are_encoded(scene, tmp_path):
    cropped = replace(scene.frames[0], image=scene.frames[0].image[:, :41, :55])
    whole = scene.predictions[0]
    depth, conf = whole.depth[:, :, :41, :55], whole.depth_conf[:, :, :41, :55]
    scene.frames = [cropped]
    scene.predictions = [Prediction((41, 55), pose_enc=whole.pose_enc, depth=depth, depth_conf=conf)]
    path = EXPORTERS["video"](scene.write(tmp_path), tmp_path, ExportOptions())
    with av.open(path) as container:
        (frame,) = container.decode(video=0)
    assert (frame.height, frame.width) == (40, 164)


def test_photos_and_slow_sequences_play_at_ten_frames_per_second(make_scene, tmp_path):
    assert frame_rate(make_scene(3, timed=False).write(tmp_path / "photos")) == Fraction(10)
    scene = make_scene(3)
    scene.frames = [replace(frame, time=2.0 * position) for position, frame in enumerate(scene.frames)]
    assert frame_rate(scene.write(tmp_path / "slow")) == Fraction(10)


def test_every_exporter_writes_to_the_given_folder(result, tmp_path):
    names = {"glb": "scene.glb", "ply": "points.ply", "colmap": "colmap", "tum": "trajectory.txt"}
    names |= {"depth": "depth", "video": "preview.mp4", "mesh": "mesh.glb", "nerfstudio": "nerfstudio"}
    if find_spec("rerun"):
        names["rerun"] = "scene.rrd"
    folder = tmp_path / "elsewhere" / "deep"
    for _ in range(2):  # the second time over the first
        assert {name: EXPORTERS[name](result, folder, ExportOptions()) for name in names} == {
            name: folder / file for name, file in names.items()
        }
    assert sorted(path.name for path in folder.iterdir()) == sorted(names.values())


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("ne", encoding="utf-8")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "folder"
    for name in ("a", "b"):
        with atomic_directory(folder, marker="a") as temporary:
            (temporary / name).touch()
    with pytest.raises(RuntimeError), atomic_directory(folder, marker="b") as temporary:
        (temporary / "c").touch()
        raise RuntimeError
    with pytest.raises(FileExistsError, match="not made by this program"), atomic_directory(folder, marker="a"):
        pass
    assert [path.name for path in folder.iterdir()] == ["b"] and list(tmp_path.iterdir()) == [folder]


def test_values_between_ends_that_are_no_numbers_are_black():
    values, usable = np.array([[1.0, np.inf, np.nan, 2.0]]), np.array([[True, True, True, False]])
    colors = colorize(values, (0.0, 2.0), usable, cv2.COLORMAP_TURBO)
    np.testing.assert_array_equal((colors > 0).any(-1), [[True, True, False, False]])
    with np.errstate(invalid="ignore"):
        assert not colorize(values, (np.inf, np.inf), usable, cv2.COLORMAP_TURBO).any()
