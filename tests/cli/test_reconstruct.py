"""`streamvggt reconstruct`: what it leaves behind, and what it does with bad input."""

import errno
import json
import os
import pickle

import av
import cv2
import numpy as np
import psutil
import pycolmap
import pytest
import torch
import trimesh
from PIL import Image
from small_models import tiny

from streamvggt.cli import run_metadata
from streamvggt.cli.saved_state import StreamCheckpoint
from streamvggt.export import EXPORTERS, ReconstructionResult, ResultWriter, frame_files, writer
from streamvggt.model.device import resolve_dtype
from streamvggt.model.vggt import VGGT
from streamvggt.stream.policy import DEFAULT_POLICY

ALL_EXPORTS = {"scene.glb", "points.ply", "colmap", "trajectory.txt", "depth", "preview.mp4"}


def record_of(folder) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def snapshot(folder) -> dict:
    """Every file of a folder and what is in it."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_video(path, photos, size=(56, 42)):
    """The photos as a video that loses nothing."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "bgr0"
        for photo in sorted(photos.iterdir()):
            picture = av.VideoFrame.from_ndarray(np.asarray(Image.open(photo).resize(size)), format="rgb24")
            container.mux(stream.encode(picture.reformat(format="bgr0")))
        container.mux(stream.encode(None))
    return path


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# What a run leaves behind


def test_everything_is_written_and_explains_itself(reconstruct, photos, weights, points_seen_once, tmp_path):
    formats = "glb,ply,colmap,tum,depth,video"
    status, output = reconstruct(photos, "--formats", formats, "--conf-percentile", 30, "--no-edge-mask")
    out = tmp_path / "out"
    assert status == 0 and "6 frames" in output and "frame/s" in output and "memory" in output
    names = {path.name for path in out.iterdir()}
    assert names == {"frames", "images", "inputs.json", "run.json", *ALL_EXPORTS}  # no state, no unfinished file
    assert [frame.name for frame in ReconstructionResult(out)] == [f"photo_{number}" for number in range(6)]

    cloud = trimesh.load(out / "points.ply")
    assert len(cloud.vertices) == pytest.approx(0.7 * 6 * 42 * 56, rel=0.02)  # --conf-percentile 30 drops three of ten
    assert "points" in trimesh.load(out / "scene.glb").geometry
    assert pycolmap.Reconstruction(out / "colmap" / "sparse" / "0").num_reg_images() == 6
    assert np.loadtxt(out / "trajectory.txt").shape == (6, 8)
    assert cv2.imread(str(out / "depth" / "photo_3.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    with av.open(str(out / "preview.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 6

    record = record_of(out)
    assert record["status"] == "finished" and record["error"] is None
    assert record["command"][:3] == ["streamvggt", "reconstruct", str(photos)]
    assert record["settings"]["policy"] == "window:1,2" and record["settings"]["weights"] == str(weights)
    assert record["frames"] == {"input_total": 6, "done": 6, "skipped": []}
    assert record["timings"]["median_ms"] > 0 and record["timings"]["seconds"] > 0
    assert set(record["exports"]) == ALL_EXPORTS
    assert record["versions"]["torch"] == torch.__version__ and record["device"].startswith("cpu")
    assert record["started"] <= record["updated"]


def test_photos_and_the_video_of_them_give_the_same(command, options, photos, tmp_path):
    video = write_video(tmp_path / "clip.mkv", photos)
    for source, out in ((photos, "a"), (video, "b")):
        assert command("reconstruct", source, "--out", tmp_path / out, *options)[0] == 0
    for a, b in zip(ReconstructionResult(tmp_path / "a"), ReconstructionResult(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(a.cam_from_world, b.cam_from_world)
        np.testing.assert_array_equal(a.depth, b.depth)
    assert [frame.time for frame in ReconstructionResult(tmp_path / "b")] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-3
    )


def test_photos_of_different_sizes_are_padded_to_one(reconstruct, photos, points_seen_once, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, size in enumerate([(56, 42), (56, 28), (112, 28)]):
        Image.open(photos / "photo_0.png").resize(size).save(mixed / f"{number}.png")
    assert reconstruct(mixed, "--formats", "glb,colmap,depth,video")[0] == 0
    frames = list(ReconstructionResult(tmp_path / "out"))
    assert {frame.image.shape for frame in frames} == {(42, 56, 3)}
    assert [frame.content for frame in frames] == [(0, 0, 42, 56), (7, 0, 35, 56), (14, 0, 28, 56)]


@pytest.mark.parametrize("more", [("--dtype", "bfloat16"), ("--camera-cache", "shared"), ("--kv-cache-dtype", "int8")])
def test_other_ways_to_compute(reconstruct, photos, tmp_path, more):
    assert reconstruct(photos, *more, "--max-frames", 3)[0] == 0
    assert len(ReconstructionResult(tmp_path / "out")) == 3
    assert more[1] in record_of(tmp_path / "out")["settings"].values()


def test_low_memory_fills_in_what_is_not_given(reconstruct, photos, tmp_path):
    assert reconstruct(photos, "--low-memory", "--policy", "window:1,2", "--max-frames", 3)[0] == 0
    settings = record_of(tmp_path / "out")["settings"]
    half = str(resolve_dtype("half", torch.device("cpu"))).removeprefix("torch.")
    assert (settings["policy"], settings["kv_cache_dtype"], settings["dtype"]) == ("window:1,2", "int8", half)


def test_the_point_head(reconstruct, photos, tmp_path):
    assert reconstruct(photos, "--heads", "camera,points", "--point-source", "head", "--formats", "ply")[0] == 0
    assert ReconstructionResult(tmp_path / "out")[0].depth is None and (tmp_path / "out" / "points.ply").exists()


@pytest.mark.slow
def test_the_process_does_not_grow(command, options, many_photos, tmp_path, monkeypatch):
    process, finish, sizes = psutil.Process(), ResultWriter.finish, []

    def measured(self, *arguments):
        finish(self, *arguments)
        sizes.append(process.memory_info().rss / 1e6)

    monkeypatch.setattr(ResultWriter, "finish", measured)
    more = ("--heads", "camera,depth,points")  # a frame kept by mistake would be 0.1 MB
    assert command("reconstruct", many_photos, "--out", tmp_path / "out", *options, *more)[0] == 0
    assert max(sizes[100:]) - max(sizes[40:50]) < 3


def test_help_of_all_commands(command):
    for name, flag in (("reconstruct", "--resume"), ("export", "--conf-percentile")):
        status, output = command(name, "--help")
        assert status == 0 and output.startswith(f"usage: streamvggt {name}") and flag in output


# What is rejected, before anything is written


@pytest.fixture
def refused(reconstruct, photos, tmp_path):
    """Calls with options that must be refused in one readable piece, with no result left behind; what was said."""

    def call(*more, source=photos, made=False):
        status, output = reconstruct(source, *more)
        assert status in (1, 2) and "error:" in output and "Traceback" not in output and "Errno" not in output
        assert made or not (tmp_path / "out").exists()
        return output

    return call


@pytest.mark.parametrize(
    "more, words",
    [
        (["--policy", "windo:1,8"], "policy 'windo:1,8' is unknown; choose one of all, window"),
        (["--policy", "window:1"], "policy 'window:1' has 1 number(s) behind its name"),
        (["--policy", "window:²,1"], "ANCHOR must be a whole number, not"),
        (["--heads", "depth"], "--heads depth: camera and any of depth, points"),
        (["--heads", "camera,dept"], "--heads camera,dept: camera and any of"),
        (["--formats", "glb,stl"], "'stl' is unknown; choose from glb,ply,colmap"),
        (["--formats", "depth", "--heads", "camera"], "--formats depth needs the depth head: add depth to --heads"),
        (["--formats", "glb", "--heads", "camera"], "add depth to --heads, or use --point-source head"),
        (
            ["--formats", "glb", "--point-source", "head"],
            "--point-source head needs the point head: add points to --heads",
        ),
        (["--conf-percentile", "100"], "at least 0 and below 100, not 100"),
        (["--conf-percentile", "nan"], "--conf-percentile: expected a number from 0 to 100"),
        (["--conf-percentile", "high"], "--conf-percentile: expected a number from 0 to 100, got 'high'"),
        (["--frames", "7"], "'7' is not a range of frames; write START:STOP"),
        (["--device", "tpu"], "--device tpu is unknown; choose cuda, mps or cpu"),
        (["--device", "meta"], "--device meta is not supported"),
        (["--dtype", "int8"], "choose from"),
        (["--kv-cache-dtype", "int4"], "choose from"),
        (["--policy", "all", "--step-mode", "compile"], "needs a memory of whole frames that becomes full"),
        (["--policy", "window", "--step-mode", "cuda_graph"], "the model is on cpu: choose eager or compile"),
        (
            ["--submaps", "8,4", "--policy", "window:1,2", "--step-mode", "compile"],
            "--submaps requires --step-mode eager",
        ),
        (["--attention", "flash"], "flash"),
        (["--size", "100"], "multiple of the patch size 14; got 100, the nearest is 98"),
        (["--stride", "0"], "--stride: expected a whole number from 1 to 1000000000, got '0'"),
        (["--max-frames", "0"], "--max-frames: expected a whole number from 1"),
        (["--fps", "2"], "fps: photos have no times. Use stride"),
        (["--weights", "random:tiny"], "expected random:small or random:full"),
        (
            ["--weights", "nowhere.pt"],
            "no weights at 'nowhere.pt': expected a file (.safetensors, .pt, .pth, .ckpt, .bin), a folder",
        ),
    ],
)
def test_wrong_options_are_explained(refused, more, words):
    assert words in refused(*more)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(refused):
    assert "--device cuda: not available to PyTorch" in refused("--device", "cuda")


def test_inputs_that_are_none(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "No images" in refused(source=tmp_path / "empty")
    (tmp_path / "movies").mkdir()
    (tmp_path / "movies" / "a.mp4").touch()
    assert "it contains videos, name one of them: a.mp4" in refused(source=tmp_path / "movies")
    assert "No folder, image, video, address or webcam at" in refused(source=tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    assert "notes.txt is neither a video" in refused(source=tmp_path / "notes.txt")


def test_weights_of_another_network(refused, tmp_path):
    torch.save({"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(2)}, tmp_path / "resnet.pt")
    assert "does not contain a VGGT network" in refused("--weights", tmp_path / "resnet.pt")
    tiny(dtype=torch.float32, heads=("camera",)).save_pretrained(tmp_path / "camera")
    output = refused("--weights", tmp_path / "camera")
    assert "does not fit the network" in output and "The file has no depth head" in output


def test_weights_with_code_are_not_executed(refused, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    with open(tmp_path / "evil.pt", "wb") as file:
        pickle.dump({"model": Payload()}, file)
    assert "contains Python code or objects, which are never executed here" in refused(
        "--weights", tmp_path / "evil.pt"
    )
    assert not (tmp_path / "executed").exists()


def test_an_out_that_is_no_folder(command, options, photos, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "result"):
        status, output = command("reconstruct", photos, "--out", out, *options)
        assert status == 1 and "file is a file, a folder was expected" in output
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_an_out_that_may_not_be_written_to(refused, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may do everything
    assert "may not be written to; choose another --out" in refused()


@pytest.mark.parametrize("name", ["depth/0.png", "frames/0.jpg", "images/0.jpg", "notes.txt"])
def test_a_folder_with_other_files_is_left_alone(refused, tmp_path, name):
    """A data set has its own depth/ or frames/; a result beside its images would replace them."""
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    for more in ([], ["--resume"]):
        assert f"contains other files ({name.split('/')[0]})" in refused(*more, "--formats", "depth", made=True)
    assert snapshot(tmp_path / "out") == {path: b"mine"}


def test_a_second_start_is_rejected(reconstruct, photos, pushed, tmp_path):
    reconstruct(photos)
    before = snapshot(tmp_path / "out")
    status, output = reconstruct(photos)
    assert status == 1 and "already contains a result: continue with --resume, or choose another --out" in output
    assert snapshot(tmp_path / "out") == before and len(pushed) == 6


# What goes wrong on the way


def test_an_unreadable_photo_is_skipped_and_reported(reconstruct, photos, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number in (0, 2):
        (mixed / f"{number}.png").write_bytes((photos / f"photo_{number}.png").read_bytes())
    (mixed / "1.jpg").write_text("I am no photo", encoding="utf-8")
    status, output = reconstruct(mixed)
    assert status == 0 and "skipped 1.jpg: not an image" in output
    assert [frame.name for frame in ReconstructionResult(tmp_path / "out")] == ["0", "2"]
    skipped = [["1.jpg", "not an image (its content is text)"]]
    assert record_of(tmp_path / "out")["frames"] == {"input_total": 3, "done": 2, "skipped": skipped}


def test_an_unreadable_photo_is_an_error_if_strict(reconstruct, photos, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "0.png").write_bytes((photos / "photo_0.png").read_bytes())
    (mixed / "1.jpg").write_text("I am no photo", encoding="utf-8")
    status, output = reconstruct(mixed, "--strict")
    assert status == 1 and "1.jpg: not an image" in output
    record = record_of(tmp_path / "out")
    assert record["status"] == "failed" and "1.jpg: not an image" in record["error"]
    assert len(ReconstructionResult(tmp_path / "out")) == 1
    assert reconstruct(mixed, "--resume")[0] == 0  # the fault may be forgiven later
    assert record_of(tmp_path / "out")["error"] is None


def test_many_unreadable_photos_do_not_flood_the_terminal(reconstruct, photos, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "good.png").write_bytes((photos / "photo_0.png").read_bytes())
    for number in range(30):
        (mixed / f"{number}.jpg").write_text("I am no photo", encoding="utf-8")
    _, output = reconstruct(mixed)
    assert output.count("not an image") == 10 and "skipped 20 more" in output and "run.json lists them" in output
    assert len(record_of(tmp_path / "out")["frames"]["skipped"]) == 30


def test_photos_none_of_which_can_be_read(reconstruct, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.jpg").write_text("I am no photo", encoding="utf-8")
    status, output = reconstruct(tmp_path / "bad")
    assert status == 1 and "none of 1 images could be read; the first, 0.jpg: not an image" in output


def test_a_truncated_video(reconstruct, photos, tmp_path):
    video = write_video(tmp_path / "clip.mkv", photos)
    data = video.read_bytes()
    video.write_bytes(data[: int(len(data) * 0.6)])
    status, output = reconstruct(video)
    assert status == 0 and "skipped clip.mkv" in output
    record = record_of(tmp_path / "out")["frames"]
    assert 0 < record["done"] < 6 and record["skipped"][0][0] == "clip.mkv"
    status, output = reconstruct(video, "--resume")  # the end of a damaged video is its end
    assert (
        status == 0 and "computed again" not in output and len(ReconstructionResult(tmp_path / "out")) == record["done"]
    )


def break_numbers(monkeypatch, field, value, at=2):
    step, calls = VGGT.step, []

    def broken(self, *arguments, **options):
        prediction = step(self, *arguments, **options)
        calls.append(0)
        if len(calls) == at + 1:
            getattr(prediction, field)[:] = value
        return prediction

    monkeypatch.setattr(VGGT, "step", broken)


@pytest.mark.parametrize("field, value", [("pose_enc", np.nan), ("pose_enc", np.inf), ("depth", np.nan)])
def test_answers_that_are_no_numbers_stop_the_run(reconstruct, photos, tmp_path, monkeypatch, field, value):
    break_numbers(monkeypatch, field, value)
    status, output = reconstruct(photos, "--formats", "glb")
    assert status == 1 and f"the outputs for frame photo_2 are not numbers ({field})" in output
    assert "--dtype float32" in output
    assert (
        len(ReconstructionResult(tmp_path / "out")) == 2
        and np.isfinite(np.loadtxt(tmp_path / "out" / "trajectory.txt")).all()
    )


def test_an_infinite_depth_is_skipped(reconstruct, photos, tmp_path, monkeypatch):
    break_numbers(monkeypatch, "depth", np.inf)
    assert reconstruct(photos, "--formats", "ply,depth,video", "--conf-percentile", 0, "--no-edge-mask")[0] == 0
    assert len(trimesh.load(tmp_path / "out" / "points.ply").vertices) == 5 * 42 * 56


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nmore"), MemoryError()])
def test_no_memory_left(reconstruct, photos, tmp_path, monkeypatch, error):
    step = VGGT.step

    def exhausted(self, images, memory, **options):
        if memory.num_frames == 2:
            raise error
        return step(self, images, memory, **options)

    with monkeypatch.context() as patch:
        patch.setattr(VGGT, "step", exhausted)
        status, output = reconstruct(photos)
    assert status == 1 and "out of memory" in output and "--policy window:1,4" in output and "more" not in output
    assert len(ReconstructionResult(tmp_path / "out")) == 2
    assert reconstruct(photos, "--resume")[0] == 0 and len(ReconstructionResult(tmp_path / "out")) == 6


@pytest.mark.parametrize("record_too", [False, True], ids=["frames", "all files"])
def test_a_full_disk(reconstruct, photos, tmp_path, monkeypatch, record_too):
    encode, replace, count = writer.encode_frame, os.replace, []

    def filling_up(frame):
        count.append(0)
        return (encode if len(count) < 4 else full_disk)(frame)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "encode_frame", filling_up)
        if record_too:  # run.json and the stream's state cannot be written either
            patch.setattr(os, "replace", lambda *paths: (replace if len(count) < 4 else full_disk)(*paths))
        status, output = reconstruct(photos)
    out = tmp_path / "out"
    assert status == 1
    error = output.split("error: ")[-1]
    assert "cannot write frame 3 (photo_3)" in error and "No space left" in error and "GB are free" in error
    assert "3 finished frames kept: continue with --resume" in error
    assert [frame.name for frame in ReconstructionResult(out)] == ["photo_0", "photo_1", "photo_2"]
    assert record_of(out)["status"] == ("running" if record_too else "failed")
    assert not list(out.rglob("*.part*"))
    status, output = reconstruct(photos, "--resume", "--formats", "glb")
    assert status == 0 and len(ReconstructionResult(out)) == 6 and record_of(out)["status"] == "finished"


def test_a_run_continues_where_only_its_record_and_state_cannot_be_written(reconstruct, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(run_metadata, "WRITE_INTERVAL", 0)
    monkeypatch.setattr(StreamCheckpoint, "should_save", lambda self: True)
    with monkeypatch.context() as patch:
        patch.setattr("streamvggt.stream.session.torch.save", full_disk)
        patch.setattr(run_metadata, "atomic_write", full_disk)
        status, output = reconstruct(photos)
    assert status == 1  # the run.json of a finished result must be there
    assert (
        "the stream's state could not be saved" in output and "run.json could not be written: No space left" in output
    )
    assert len(frame_files(tmp_path / "out")) == 6


def test_a_full_disk_while_exporting(reconstruct, photos, pushed, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for accident, expected in ((full_disk, 1), (lambda *_: (_ for _ in ()).throw(KeyboardInterrupt), 130)):
        with monkeypatch.context() as patch:
            patch.setitem(EXPORTERS, "ply", accident)
            status, output = reconstruct(photos, "--formats", "ply", "--resume")
        assert status == expected and f"All frames are kept in {out}; `streamvggt export {out}` makes files" in output
        assert record_of(out)["status"] == "streamed"
    assert reconstruct(photos, "--formats", "ply", "--resume")[0] == 0
    assert len(pushed) == 6 and (out / "points.ply").exists() and record_of(out)["status"] == "finished"


def test_exports_without_points_leave_the_run_unfinished(reconstruct, photos, tmp_path):
    """What can be written is, the rest is told, and another call with --resume makes it."""
    white = tmp_path / "white"
    white.mkdir()
    for number in range(2):
        Image.new("RGB", (56, 42), "white").save(white / f"{number}.png")
    status, output = reconstruct(white, "--drop-white", "--formats", "ply,depth,video")
    assert status == 1 and "error: --formats ply: no points are left" in output
    assert "left with --conf-percentile 50, --drop-white and without --no-edge-mask: relax them. points.ply" in output
    record = record_of(tmp_path / "out")
    assert record["status"] == "streamed" and record["exports"] == ["depth", "preview.mp4"]
    assert record["error"].startswith("--formats ply: no points are left")
    assert reconstruct(white, "--resume", "--formats", "ply")[0] == 0
    record = record_of(tmp_path / "out")
    assert (record["status"], record["error"], record["exports"]) == (
        "finished",
        None,
        ["depth", "points.ply", "preview.mp4"],
    )


@pytest.mark.parametrize(
    "frames, more, words",
    [
        ("5:2", [], "no frame of any result is in the range (5, 2, None)"),
        (":0", [], "no frame of any result is in the range"),
        ("6:", [], "none of the 6 frames is in the range (6, None, None)"),
        ("2:-4", [], "none of the 6 frames is in the range"),
        ("3:", ["--max-frames", "3"], "none of the 3 frames is in the range"),
    ],
)
def test_impossible_ranges_of_frames_are_rejected_before_the_run(reconstruct, photos, tmp_path, frames, more, words):
    status, output = reconstruct(photos, "--formats", "ply", "--frames", frames, *more)
    assert status == 1 and words in output and not (tmp_path / "out").exists()


def test_names_that_cannot_be_stored(reconstruct, photos, tmp_path, points_seen_once):
    odd = tmp_path / "odd"
    odd.mkdir()
    photo = (photos / "photo_0.png").read_bytes()
    names = [b"0.png", b"\xff\xfe.png", b"\xfe\xff.png", b"a\nb.png", b"L" * 247 + b".png", b"\xfd.jpg"]
    for name in names:
        (odd / os.fsdecode(name)).write_bytes(b"junk" if name.endswith(b"jpg") else photo)
    status, output = reconstruct(odd, "--formats", "glb,ply,colmap,tum,depth,video")
    assert status == 0 and "skipped \N{REPLACEMENT CHARACTER}.jpg: not an image" in output
    out = tmp_path / "out"
    assert sorted(frame.name for frame in ReconstructionResult(out)) == sorted(["0", "__", "___2", "a_b", "L" * 200])
    for name in ("0", "__", "___2", "a_b", "L" * 200):
        assert (out / "images" / f"{name}.jpg").exists() and (out / "depth" / f"{name}.png").exists()
    assert record_of(out)["status"] == "finished"
    assert record_of(out)["frames"]["skipped"] == [
        ["\N{REPLACEMENT CHARACTER}.jpg", "not an image (its content is text)"]
    ]
    assert reconstruct(odd, "--resume")[0] == 0  # the record is read back


def test_random_weights_are_loudly_meaningless(reconstruct, photos):
    status, output = reconstruct(photos, "--weights", "random:small", "--size", 56, "--max-frames", 2)
    assert status == 0 and "no meaning" in output


def test_a_memory_that_will_not_hold_the_clip_is_reported_before(reconstruct, photos, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Free", (), {"available": 1000}))
    _, output = reconstruct(photos, "--policy", "all")
    assert "keeping all 6 frames may need" in output and f"--policy {DEFAULT_POLICY}" in output
