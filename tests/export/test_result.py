"""The result folder: what is read is what was said, and no accident leaves half a file."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from streamvggt.export import Result, ResultWriter, finished_frames


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_frame_is_read_as_it_was_said(scene, result):
    assert len(result) == 5
    for position, stored in enumerate(result):
        frame, prediction = scene.frames[position], scene.predictions[position]
        assert (stored.index, stored.name, stored.time) == (frame.index, frame.name, frame.time)
        assert (stored.original_size, stored.content) == ((120, 150), frame.content)
        assert stored.cam_from_world.dtype == np.float64 and stored.depth.dtype == np.float32
        np.testing.assert_allclose(stored.cam_from_world, scene.poses[position], atol=1e-12)
        np.testing.assert_allclose(stored.intrinsics, scene.intrinsics, atol=1e-10)
        np.testing.assert_array_equal(stored.original_from_image, frame.original_from_image)
        np.testing.assert_array_equal(stored.image / np.float32(255), frame.image.permute(1, 2, 0))
        np.testing.assert_array_equal(stored.depth, prediction.depth[0, 0, ..., 0])
        np.testing.assert_array_equal(stored.points, prediction.points[0, 0])
        np.testing.assert_allclose(stored.depth_conf, prediction.depth_conf[0, 0], rtol=2**-11)  # half precision
        assert stored.depth_conf.dtype == np.float32


def test_the_original_image_is_kept_in_its_resolution(scene, result):
    with Image.open(result.folder / "images" / "view_0020.jpg") as image:
        difference = np.abs(np.asarray(image).astype(int) - scene.frames[2].original)
    assert difference.mean() < 2  # JPEG 95


def test_both_sources_give_the_points_of_the_surface(scene, result):
    for source in ("depth", "head"):
        points, conf = result[3].world_points(source)
        assert scene.distance(points).max() < 1e-5 and conf.shape == points.shape[:2]
    np.testing.assert_allclose(result[3].camera_depth("head"), result[3].depth, rtol=1e-5)


def test_a_huge_confidence_stays_finite(scene, tmp_path):
    prediction = replace(scene.predictions[0], depth_conf=scene.predictions[0].depth_conf * 1e6)
    ResultWriter(tmp_path).add(scene.frames[0], prediction)
    assert np.isfinite(Result(tmp_path)[0].depth_conf).all()


def test_a_head_that_was_not_run_is_named(scene, tmp_path):
    bare = replace(scene.predictions[0], points=None, points_conf=None)
    ResultWriter(tmp_path).add(scene.frames[0], bare)
    frame = Result(tmp_path)[0]
    assert frame.points is None
    with pytest.raises(ValueError, match=r"point head was not run.*add points to --heads"):
        frame.world_points("head")
    with pytest.raises(ValueError, match="add camera to --heads"):
        ResultWriter(tmp_path / "other").add(scene.frames[0], replace(bare, pose_enc=None))


def test_only_single_frames_are_written(scene, tmp_path):
    two = scene.predictions[0].map(lambda tensor: tensor.repeat_interleave(2, 1))
    with pytest.raises(ValueError, match=r"B, S = \(1, 2\)"):
        ResultWriter(tmp_path).add(scene.frames[0], two)


def test_cameras_are_read_without_the_images(result, monkeypatch):
    read = []
    getitem = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda npz, key: read.append(key) or getitem(npz, key))
    assert result.camera(-1).name == "view_0040"
    assert not {"image", "depth", "points"} & set(read)


def test_every_finished_frame_is_readable_between_frames(scene, tmp_path):
    writer = ResultWriter(tmp_path)
    for count, (frame, prediction) in enumerate(zip(scene.frames, scene.predictions, strict=True), start=1):
        writer.add(frame, prediction)
        assert [stored.name for stored in Result(tmp_path)] == [frame.name for frame in scene.frames[:count]]
        assert len((tmp_path / "trajectory.txt").read_text(encoding="utf-8").splitlines()) == count


@pytest.mark.parametrize("function, module", [("savez", np), ("replace", os)])
def test_an_accident_leaves_no_half_file(scene, tmp_path, monkeypatch, function, module):
    scene.write(tmp_path, count=2)
    before = files_of(tmp_path)
    original = getattr(module, function)

    def accident(*arguments, **options):
        if function == "savez":
            original(*arguments, **options)  # the bytes are there, then the power of the user's Ctrl-C
        raise KeyboardInterrupt

    monkeypatch.setattr(module, function, accident)
    writer = ResultWriter.__new__(ResultWriter)  # the constructor writes, too
    writer.folder, writer.num_frames = tmp_path, 2
    with pytest.raises(KeyboardInterrupt):
        writer.add(scene.frames[2], scene.predictions[2])
    assert [name for name in files_of(tmp_path) if name not in before] in ([], ["images/view_0020.jpg"])
    assert len(Result(tmp_path)) == 2


def test_a_full_disk_is_explained_and_can_be_gone_on_from(scene, tmp_path, monkeypatch):
    scene.write(tmp_path, count=2)
    writer = ResultWriter(tmp_path, resume=2)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match=r"No space left.*GB are free.*2 finished .* kept.*--resume") as caught:
            writer.add(scene.frames[2], scene.predictions[2])
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)
    assert not list(tmp_path.rglob(".*"))
    assert len(scene.write(tmp_path, resume=2)) == 5


def test_a_filled_folder_is_refused(scene, result):
    with pytest.raises(FileExistsError, match="5 frames: go on with --resume or choose another --out"):
        ResultWriter(result.folder)
    assert len(Result(result.folder)) == 5


@pytest.mark.parametrize("name", ["images/mine.jpg", "trajectory.txt"])
def test_files_of_the_user_are_not_overwritten(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"photo")
    for resume in (None, 0):
        with pytest.raises(FileExistsError, match=f"{name} would be overwritten"):
            ResultWriter(tmp_path, resume)


def test_a_run_killed_before_its_first_frame_starts_again(scene, tmp_path):
    ResultWriter(tmp_path)
    (tmp_path / "images" / "view_0000.jpg").write_bytes(b"whole, but its frame is not")
    assert len(scene.write(tmp_path)) == 5


def test_resume_keeps_the_first_frames_and_goes_on(scene, tmp_path):
    whole = scene.write(tmp_path / "whole")
    result = scene.write(tmp_path / "cut", count=4)
    # A kill after the frame and before its line, or in the middle of a line.
    trajectory = result.folder / "trajectory.txt"
    trajectory.write_text(trajectory.read_text(encoding="utf-8")[:-30], encoding="utf-8")
    (result.folder / "frames" / ".000004.part.npz").write_bytes(b"half")
    ResultWriter(result.folder, resume=2)
    assert len(Result(result.folder)) == 2 and len(trajectory.read_text(encoding="utf-8").splitlines()) == 2
    assert sorted(path.name for path in (result.folder / "images").iterdir()) == ["view_0000.jpg", "view_0010.jpg"]
    scene.write(result.folder, resume=2)
    assert files_of(result.folder) == files_of(whole.folder)
    for name in files_of(whole.folder):
        if not name.endswith("npz"):
            assert (result.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_resume_needs_the_frames_it_is_told_to_keep(scene, tmp_path):
    scene.write(tmp_path, count=2)
    with pytest.raises(ValueError, match="2 finished frames, 3 to keep"):
        ResultWriter(tmp_path, resume=3)
    assert len(finished_frames(tmp_path / "nowhere")) == 0


def test_a_folder_that_is_no_result_is_refused(result, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a result"):
        Result(tmp_path / "nowhere")
    (result.folder / "frames" / "000001.npz").unlink()
    with pytest.raises(ValueError, match=r"000001\.npz is missing"):
        Result(result.folder)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"0" * 999])
def test_a_damaged_frame_is_named_and_can_be_dropped(scene, result, damage):
    path = result.folder / "frames" / "000004.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"cannot read .*000004\.npz"):
        result[4]
    assert result[3].name == "view_0030"
    with pytest.raises(ValueError, match=r"cannot read .*000004\.npz"):
        ResultWriter(result.folder, resume=5)
    assert len(scene.write(result.folder, resume=4)) == 5
    assert Result(result.folder)[4].name == "view_0040"
