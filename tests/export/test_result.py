"""The result folder: read values equal the predictions, and files are atomic."""

import errno
import io
import os
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamvggt.export import (
    EXPORTERS,
    DamagedResult,
    ExportOptions,
    ReconstructionResult,
    ResultWriter,
    check_result,
    frame_files,
)
from streamvggt.stream.read_ahead import read_ahead

THREADS = partial(read_ahead, num_threads=3)


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
    assert np.isfinite(ReconstructionResult(tmp_path)[0].depth_conf).all()


@pytest.mark.parametrize("broken", [0.0, -3.0, np.nan, np.inf])
def test_pixels_without_a_confidence_are_left_out(broken, result):
    frame = result[0]
    usable = frame.valid_mask("depth")
    conf = frame.depth_conf.copy()
    conf[20, 20] = broken
    changed = replace(frame, depth_conf=conf)
    assert usable[20, 20] and not changed.valid_mask("depth")[20, 20]
    assert changed.valid_mask("depth").sum() == usable.sum() - 1


def test_a_head_that_was_not_run_is_named(scene, tmp_path):
    bare = replace(scene.predictions[0], points=None, points_conf=None)
    ResultWriter(tmp_path).add(scene.frames[0], bare)
    frame = ReconstructionResult(tmp_path)[0]
    assert frame.points is None
    with pytest.raises(ValueError, match=r"point head was not run.*add points to --heads"):
        frame.world_points("head")
    with pytest.raises(ValueError, match="add camera to --heads"):
        ResultWriter(tmp_path / "other").add(scene.frames[0], replace(bare, pose_enc=None))


def test_only_single_frames_are_written(scene, tmp_path):
    two = scene.predictions[0].map(lambda tensor: tensor.repeat_interleave(2, 1))
    with pytest.raises(ValueError, match=r"B, S = \(1, 2\)"):
        ResultWriter(tmp_path).add(scene.frames[0], two)


@pytest.mark.parametrize(
    "name, output", [("ply", "points.ply"), ("mesh", "mesh.glb"), ("video", "preview.mp4"), ("depth", "depth")]
)
def test_threads_do_not_change_an_export(result, tmp_path, name, output):
    contents = []
    for number, run_tasks in enumerate((None, THREADS)):
        folder = tmp_path / str(number)
        folder.mkdir()
        EXPORTERS[name](ReconstructionResult(result.folder, run_tasks=run_tasks), folder, ExportOptions())
        contents.append({path: (folder / path).read_bytes() for path in files_of(folder)})
    assert contents[0] and contents[0] == contents[1]
    assert (tmp_path / "1" / output).exists()


@pytest.mark.parametrize("run_tasks", [None, THREADS])
def test_frames_before_a_damaged_one_are_read_in_order(result, run_tasks):
    result.paths[3].write_bytes(b"damaged")
    frames = ReconstructionResult(result.folder, run_tasks=run_tasks).mapped("names", lambda frame: frame.name)
    assert [next(frames) for _ in range(3)] == [(0, "view_0000"), (1, "view_0010"), (2, "view_0020")]
    with pytest.raises(DamagedResult, match=r"000003\.npz"):
        next(frames)


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
        assert [stored.name for stored in ReconstructionResult(tmp_path)] == [
            frame.name for frame in scene.frames[:count]
        ]
        assert len((tmp_path / "trajectory.txt").read_text(encoding="utf-8").splitlines()) == count


@pytest.mark.parametrize("function, module", [("write_bytes", Path), ("replace", os)])
def test_an_accident_leaves_no_half_file(scene, tmp_path, monkeypatch, function, module):
    scene.write(tmp_path, count=2)
    before = files_of(tmp_path)
    original = getattr(module, function)

    def accident(*arguments, **options):
        if function == "write_bytes":
            original(*arguments, **options)  # the bytes are there when the user presses Ctrl-C
            if arguments[0].suffix != ".npz":
                return
        raise KeyboardInterrupt

    writer = ResultWriter(tmp_path, resume=2)  # the constructor writes, too
    monkeypatch.setattr(module, function, accident)
    with pytest.raises(KeyboardInterrupt):
        writer.add(scene.frames[2], scene.predictions[2])
    assert [name for name in files_of(tmp_path) if name not in before] in ([], ["images/view_0020.jpg"])
    assert len(ReconstructionResult(tmp_path)) == 2


def test_a_full_disk_is_explained_and_can_be_gone_on_from(scene, tmp_path, monkeypatch):
    scene.write(tmp_path, count=2)
    writer = ResultWriter(tmp_path, resume=2)

    def full(path, content):
        if path.parent.name == "frames":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    write = Path.write_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"No space left.*GB are free.*2 finished .* kept.*--resume") as caught:
            writer.add(scene.frames[2], scene.predictions[2])
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)
    assert not list(tmp_path.rglob(".*"))
    assert len(scene.write(tmp_path, resume=2)) == 5


def test_a_filled_folder_is_refused(scene, result):
    with pytest.raises(FileExistsError, match="5 frames: continue with --resume or choose another --out"):
        ResultWriter(result.folder)
    assert len(ReconstructionResult(result.folder)) == 5


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
    assert (
        len(ReconstructionResult(result.folder)) == 2 and len(trajectory.read_text(encoding="utf-8").splitlines()) == 2
    )
    assert sorted(path.name for path in (result.folder / "images").iterdir()) == ["view_0000.jpg", "view_0010.jpg"]
    scene.write(result.folder, resume=2)
    assert files_of(result.folder) == files_of(whole.folder)
    for name in files_of(whole.folder):
        if not name.endswith("npz"):
            assert (result.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_resume_requires_the_frames_to_keep(scene, tmp_path):
    scene.write(tmp_path, count=2)
    with pytest.raises(ValueError, match=r"resume: expected at most 2 finished frames .*, got 3"):
        ResultWriter(tmp_path, resume=3)
    assert len(frame_files(tmp_path / "nowhere")) == 0


def test_a_folder_that_is_no_result_is_refused(result, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a result"):
        ReconstructionResult(tmp_path / "nowhere")
    (result.folder / "frames" / "000001.npz").unlink()
    with pytest.raises(ValueError, match=r"000001\.npz is missing"):
        ReconstructionResult(result.folder)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"0" * 999])
def test_a_damaged_frame_is_named_and_can_be_dropped(scene, result, damage):
    path = result.folder / "frames" / "000004.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"cannot read .*000004\.npz: expected an archive of arrays"):
        result[4]
    assert result[3].name == "view_0030"
    with pytest.raises(ValueError, match=r"cannot read .*000004\.npz"):
        ResultWriter(result.folder, resume=5)
    assert len(scene.write(result.folder, resume=4)) == 5
    assert ReconstructionResult(result.folder)[4].name == "view_0040"


def changed(path, **fields) -> None:
    """Write a frame file with other fields; None: without it."""
    with np.load(path) as arrays:
        fields = {**arrays, **fields}
    np.savez(path, **{name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    "name, value",
    [
        ("name", "../../x"),
        ("name", b"bytes"),
        ("name", None),
        ("index", "7"),
        ("index", [1, 2]),
        ("time", np.nan),
        ("cam_from_world", np.zeros((4, 4))),
        ("cam_from_world", np.full((3, 4), np.nan)),
        ("intrinsics", None),
        ("original_size", [0, 150]),
        ("original_size", [120.0, 150.0]),
        ("content", [0, 0, 99, 99]),
        ("content", [9, 9, 3, 3]),
        ("image", np.zeros((42, 56), np.uint8)),
        ("image", np.zeros((42, 56, 3))),
        ("valid", np.ones((42, 56), np.uint8)),
        ("depth", np.zeros((42, 55), np.float32)),
        ("depth_conf", np.array(["x"] * 3)),
        ("points", np.zeros((42, 56), np.float32)),
        ("image", np.array([{}], object)),
    ],
)
def test_what_no_frame_can_be_is_refused(result, name, value):
    path = result.folder / "frames" / "000003.npz"
    changed(path, **{name: value})
    words = "pickle" if isinstance(value, np.ndarray) and value.dtype == object else f"{name}: expected"
    with pytest.raises(DamagedResult, match=rf"000003\.npz: .*{words}"):
        result[3]
    assert result[2].name == "view_0020"


def test_headers_that_promise_too_much_are_refused(result):
    path = result.folder / "frames" / "000000.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "image.npy": header.getvalue()}.items():
            archive.writestr(name, content)
    with pytest.raises(DamagedResult, match=r"cannot read .*000000\.npz: Unable to allocate"):
        result[0]


def test_frame_files_are_known_by_their_exact_name(result):
    for name in ("000001 (copy).npz", "1.npz", "0000001.npz", "01x.npz"):
        (result.folder / "frames" / name).write_bytes(b"of somebody else")
    assert len(ReconstructionResult(result.folder)) == 5


def test_every_bit_of_a_frame_file_counts(scene, tmp_path):
    """A changed bit is noticed before a run goes on, or changes nothing."""
    result = scene.write(tmp_path, count=1)
    (path,) = result.paths
    intact, content = result[0], path.read_bytes()
    random = np.random.default_rng(0)
    noticed = 0
    for place in random.integers(len(content), size=60):
        broken = bytearray(content)
        broken[place] ^= 1 << random.integers(8)
        path.write_bytes(broken)
        try:
            check_result(result)
        except DamagedResult:
            noticed += 1
        else:
            for name, value in vars(result[0]).items():
                np.testing.assert_array_equal(value, getattr(intact, name))
    assert noticed > 50


def test_going_on_checks_the_frames_that_are_kept(scene, result):
    """Also what the next step does not read; what comes after them is removed, damaged or not."""
    path = result.folder / "frames" / "000002.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"points.npy") + 5000] ^= 1
    path.write_bytes(content)
    before = files_of(result.folder)
    with pytest.raises(DamagedResult, match=r"000002\.npz.*remove it and the frames after it"):
        ResultWriter(result.folder, resume=3)
    assert files_of(result.folder) == before
    assert len(scene.write(result.folder, resume=2)) == 5


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "another"])
def test_images_are_checked(scene, result, damage):
    path = result.folder / "images" / "view_0010.jpg"
    content = path.read_bytes()
    path.unlink()
    if damage == "another":
        Image.new("RGB", (20, 10)).save(path)
    elif damage != "missing":
        path.write_bytes({"empty": b"", "cut": content[:-100]}[damage])
    (problem,) = check_result(result)
    assert "view_0010.jpg is " in problem
    before = files_of(result.folder)
    with pytest.raises(DamagedResult, match=r"view_0010\.jpg is .*remove 000001\.npz and the frames after it"):
        ResultWriter(result.folder, resume=3)
    assert files_of(result.folder) == before
    assert not check_result(scene.write(result.folder, resume=1))


def test_frames_have_a_name_a_size_and_heads_in_common(result):
    third = result.folder / "frames" / "000003.npz"
    content = third.read_bytes()
    for fields, words in (
        ({"name": "view_0000"}, "expected a name of its own, got 'view_0000' as in 000000.npz"),
        ({"points": None, "points_conf": None}, "expected image size and heads as in 000000.npz"),
    ):
        third.write_bytes(content)
        changed(third, **fields)
        with pytest.raises(DamagedResult, match=rf"000003\.npz: {words}"):
            check_result(result)


def test_a_name_that_leads_out_is_not_written_either(scene, tmp_path):
    with pytest.raises(ValueError, match=r"name: expected a plain file name, got '\.\./x'"):
        ResultWriter(tmp_path / "out").add(replace(scene.frames[0], name="../x"), scene.predictions[0])
    assert files_of(tmp_path) == ["out/trajectory.txt"]
