"""A run may end at any moment: what is finished stays readable, and --resume ends where an uninterrupted run does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from launching import finish, start
from small_models import tiny

from streamvggt.cli import main, saved_state
from streamvggt.cli.saved_state import StreamCheckpoint
from streamvggt.export import ReconstructionResult, ResultWriter, frame_files
from streamvggt.stream.session import StreamSession

COUNT = 60
TOLERANCE = 1e-5  # a saved cache has its keys in another order, which changes the rounding of their float32 sums


def run_slowly(words: list[str], saves: bool) -> None:
    """A run that waits from the fifth frame on, so that a signal does not come too late. saves: after each frame."""
    push = StreamSession.push
    StreamSession.push = lambda self, frame: time.sleep(0.05 * (self.memory.num_frames > 4)) or push(self, frame)
    if saves:
        saved_state.SAVE_INTERVAL, saved_state.MAX_SAVE_TIME_RATIO = 0, 1e9
    raise SystemExit(main(words))


def record_of(folder) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def flipped(path, member: bytes) -> bytes:
    """The content of a frame file with one bit changed among the numbers of an array."""
    content = bytearray(path.read_bytes())
    content[content.index(member) + 5000] ^= 1
    return bytes(content)


def snapshot(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_result(folder, other) -> None:
    """Two runs left the same files and said the same."""
    names = [sorted(path.relative_to(root) for path in root.rglob("*")) for root in (folder, other)]
    assert names[0] == names[1]
    for a, b in zip(ReconstructionResult(folder), ReconstructionResult(other), strict=True):
        assert (a.index, a.name, a.content) == (b.index, b.name, b.content)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_allclose(a.cam_from_world, b.cam_from_world, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(a.depth, b.depth, rtol=TOLERANCE)
    lines = [np.loadtxt(root / "trajectory.txt") for root in (folder, other)]
    np.testing.assert_allclose(*lines, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def whole(many_photos, options, tmp_path_factory):
    """The result of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(["reconstruct", str(many_photos), "--out", str(out), "--max-frames", str(COUNT), *options]) == 0
    return out


@pytest.fixture
def stopped(many_photos, options, tmp_path):
    """Starts a run in a process of its own and sends it a signal when five frames are there."""

    def run(number: signal.Signals, saves: bool = False) -> subprocess.CompletedProcess:
        words = ["reconstruct", str(many_photos), "--out", str(tmp_path / "out"), "--max-frames", str(COUNT), *options]
        process = start(run_slowly, words, saves, folder=tmp_path)
        while len(frame_files(tmp_path / "out")) < 5 and process.is_alive():
            time.sleep(0.005)
        os.kill(process.pid, number)
        return finish(process, tmp_path)

    return run


@pytest.mark.slow
def test_an_interrupted_run_continues_where_it_stopped(stopped, reconstruct, many_photos, whole, pushed, tmp_path):
    ended = stopped(signal.SIGINT)
    out = tmp_path / "out"
    done = len(ReconstructionResult(out))
    assert ended.returncode == 130 and 5 <= done < COUNT
    said = ended.stdout + ended.stderr
    assert "Stopping after the current frame" in said and "Traceback" not in said
    assert f"interrupted after {done} frames, all kept in {out}; continue with the same command" in said
    assert record_of(out)["status"] == "interrupted" and record_of(out)["frames"]["done"] == done
    assert all(np.isfinite(frame.depth).all() for frame in ReconstructionResult(out))

    kept = (out / "frames" / "000004.npz").stat().st_mtime_ns
    status, outputs = reconstruct(many_photos, "--resume", "--max-frames", COUNT)
    assert status == 0 and "computed again" not in outputs
    assert pushed == [f"photo_{index}" for index in range(done, COUNT)]
    assert (out / "frames" / "000004.npz").stat().st_mtime_ns == kept
    assert_same_result(out, whole)
    record = record_of(out)
    assert record["status"] == "finished" and record["frames"] == {"input_total": COUNT, "done": COUNT, "skipped": []}


@pytest.mark.slow
@pytest.mark.parametrize("saves", [False, True], ids=["no state", "saved state"])
def test_a_killed_run_continues(stopped, reconstruct, many_photos, whole, pushed, tmp_path, saves):
    ended = stopped(signal.SIGKILL, saves)
    out = tmp_path / "out"
    done = len(ReconstructionResult(out))
    assert ended.returncode == -signal.SIGKILL and 5 <= done < COUNT
    assert all(np.isfinite(frame.depth).all() for frame in ReconstructionResult(out))
    assert record_of(out)["status"] == "running"

    status, outputs = reconstruct(many_photos, "--resume", "--max-frames", COUNT)
    assert status == 0
    if saves:
        assert "computed again" not in outputs and COUNT - done <= len(pushed) < COUNT
    else:
        assert f"no saved stream at {out / 'stream_state.pt'}: all frames are computed again" in outputs
        assert len(pushed) == COUNT
    assert_same_result(out, whole)


def cut(reconstruct, source, monkeypatch, after: int, *more, number=signal.SIGINT) -> tuple[int, str]:
    """A run into which Ctrl-C comes during the frame after `after` others."""
    push = StreamSession.push

    def interrupted(self, frame):
        if self.memory.num_frames == after:
            os.kill(os.getpid(), number)
        return push(self, frame)

    with monkeypatch.context() as patch:
        patch.setattr(StreamSession, "push", interrupted)
        return reconstruct(source, *more)


@pytest.fixture
def cut_run(reconstruct, photos, monkeypatch, tmp_path):
    """The folder of a run over six photos that was interrupted after three."""
    status, _ = cut(reconstruct, photos, monkeypatch, 2)
    assert status == 130 and len(ReconstructionResult(tmp_path / "out")) == 3
    return tmp_path / "out"


def test_a_cut_in_the_last_frame_leaves_only_the_exports(reconstruct, photos, pushed, monkeypatch, tmp_path):
    assert cut(reconstruct, photos, monkeypatch, 5, "--formats", "ply")[0] == 130
    assert reconstruct(photos, "--resume", "--formats", "ply")[0] == 0
    assert len(pushed) == 6 and (tmp_path / "out" / "points.ply").exists()
    assert not (tmp_path / "out" / "stream_state.pt").exists()


def test_a_second_interrupt_stops_at_once_and_loses_nothing(reconstruct, photos, monkeypatch, tmp_path):
    def twice(self, frame):
        for _ in range(2 if self.memory.num_frames == 3 else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return push(self, frame)

    push = StreamSession.push
    with monkeypatch.context() as patch:
        patch.setattr(StreamSession, "push", twice)
        status, outputs = reconstruct(photos)
    assert status == 130 and "interrupted after 3 frames" in outputs and "--resume" in outputs
    assert len(ReconstructionResult(tmp_path / "out")) == 3 and record_of(tmp_path / "out")["status"] == "interrupted"
    status, outputs = reconstruct(photos, "--resume")
    assert status == 0 and "computed again" not in outputs and len(ReconstructionResult(tmp_path / "out")) == 6


def test_termination_is_an_interruption(reconstruct, photos, monkeypatch, tmp_path):
    status, outputs = cut(reconstruct, photos, monkeypatch, 2, number=signal.SIGTERM)
    assert status == 130 and "interrupted after 3 frames" in outputs
    assert record_of(tmp_path / "out")["status"] == "interrupted" and (tmp_path / "out" / "stream_state.pt").exists()


def test_the_signals_are_given_back(reconstruct, photos, monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    cut(reconstruct, photos, monkeypatch, 2)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_what_is_finished_is_only_exported(reconstruct, photos, pushed, tmp_path):
    assert reconstruct(photos, "--formats", "ply")[0] == 0
    frames = snapshot(tmp_path / "out" / "frames")
    status, _ = reconstruct(photos, "--resume", "--formats", "glb")
    assert status == 0 and len(pushed) == 6
    assert snapshot(tmp_path / "out" / "frames") == frames
    assert record_of(tmp_path / "out")["exports"] == ["points.ply", "scene.glb"]


def test_what_is_finished_is_only_exported_also_after_bad_photos(reconstruct, photos, pushed, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "0.png").write_bytes((photos / "photo_0.png").read_bytes())
    (mixed / "1.jpg").write_text("I am no photo", encoding="utf-8")
    for more in ([], ["--resume"]):
        assert reconstruct(mixed, *more)[0] == 0
    assert pushed == ["0"]
    assert record_of(tmp_path / "out")["frames"]["skipped"] == [["1.jpg", "not an image (its content is text)"]]


def test_new_photos_in_a_finished_input_are_taken(reconstruct, photos, tmp_path):
    """The stream's state is gone, so all of it is computed again, and the user is told."""
    reconstruct(photos, "--max-frames", 4, "--formats", "ply")
    status, outputs = reconstruct(photos, "--max-frames", 6, "--resume")
    assert status == 0 and "all frames are computed again" in outputs
    assert len(ReconstructionResult(tmp_path / "out")) == 6 and record_of(tmp_path / "out")["exports"] == []


def test_an_interrupted_run_continues_to_more_frames(reconstruct, photos, pushed, monkeypatch, tmp_path):
    assert cut(reconstruct, photos, monkeypatch, 2, "--max-frames", 4)[0] == 130
    pushed.clear()
    status, outputs = reconstruct(photos, "--max-frames", 5, "--resume")
    assert status == 0 and "computed again" not in outputs and pushed == ["photo_3", "photo_4"]


def test_skipped_photos_of_all_runs_are_listed_once(reconstruct, photos, monkeypatch, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number in (0, 2, 3, 5):
        (mixed / f"{number}.png").write_bytes((photos / f"photo_{number}.png").read_bytes())
    for number in (1, 4):
        (mixed / f"{number}.jpg").write_text("I am no photo", encoding="utf-8")
    assert cut(reconstruct, mixed, monkeypatch, 1)[0] == 130
    status, outputs = reconstruct(mixed, "--resume")
    assert status == 0 and outputs.count("skipped 1.jpg") == outputs.count("skipped 4.jpg") == 1
    assert [name for name, _ in record_of(tmp_path / "out")["frames"]["skipped"]] == ["1.jpg", "4.jpg"]


@pytest.mark.parametrize(
    "more, words",
    [
        (["--policy", "all"], "policy was 'window:1,2' and is now 'all'"),
        (["--size", "42"], "size was 56 and is now 42"),
        (["--stride", "2"], "stride was 1 and is now 2"),
        (["--resize-mode", "pad"], "resize_mode was 'crop' and is now 'pad'"),
        (["--heads", "camera"], "heads was"),
        (["--camera-cache", "shared"], "camera_cache was 'per_iteration' and is now 'shared'"),
        (["--weights", "{other}"], "weights_fingerprint was"),
    ],
)
def test_other_settings_are_rejected(reconstruct, cut_run, photos, pushed, tmp_path, more, words):
    torch.manual_seed(1)
    other = tiny(dtype=torch.float32)
    other.camera_head.trunk_norm.bias.data += 1
    other.save_pretrained(tmp_path / "other")
    before = snapshot(cut_run)
    status, outputs = reconstruct(photos, "--resume", *[word.format(other=tmp_path / "other") for word in more])
    assert status == 1 and words in outputs and "a result does not mix two" in outputs
    assert snapshot(cut_run) == before and len(pushed) == 0


def test_another_input_is_rejected(reconstruct, cut_run, many_photos):
    status, outputs = reconstruct(many_photos, "--resume")
    assert status == 1 and "expected the 6 input files that it began with, got others: photo_6.png" in outputs


@pytest.fixture
def own_photos(photos, tmp_path):
    return Path(shutil.copytree(photos, tmp_path / "own"))


CHANGES = {
    "a_new.png added": lambda folder: shutil.copy(folder / "photo_0.png", folder / "a_new.png"),
    "z_new.png added": lambda folder: shutil.copy(folder / "photo_0.png", folder / "z_new.png"),
    "photo_5.png removed": lambda folder: (folder / "photo_5.png").unlink(),
    "photo_4.png changed": lambda folder: os.utime(folder / "photo_4.png", (1, 1)),
    "photo_0.png changed": lambda folder: (folder / "photo_0.png").write_bytes(b"no photo"),
}


@pytest.mark.parametrize("words", CHANGES)
@pytest.mark.parametrize("finished", [False, True])
def test_inputs_that_changed_are_rejected(reconstruct, own_photos, monkeypatch, pushed, tmp_path, words, finished):
    if finished:
        assert reconstruct(own_photos)[0] == 0
    else:
        assert cut(reconstruct, own_photos, monkeypatch, 2)[0] == 130
    CHANGES[words](own_photos)
    before, count = snapshot(tmp_path / "out"), len(pushed)
    status, outputs = reconstruct(own_photos, "--resume")
    assert status == 1 and words in outputs and "choose another --out" in outputs
    assert snapshot(tmp_path / "out") == before and len(pushed) == count


@pytest.mark.parametrize("written", ["{}/", "{}/.", "{}/*.png", "{}/../own", "own", "link"])
def test_the_same_folder_written_otherwise_is_the_same(reconstruct, own_photos, monkeypatch, tmp_path, written):
    assert cut(reconstruct, own_photos, monkeypatch, 2)[0] == 130
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(own_photos)
    status, outputs = reconstruct(written.format(own_photos), "--resume")
    assert status == 0 and "computed again" not in outputs and len(ReconstructionResult(tmp_path / "out")) == 6


def test_a_list_of_inputs_that_is_damaged_is_rejected(reconstruct, cut_run, photos):
    for content in (None, "", "[1]", '[["a", 1, "2"]]', "[" * 100_000):
        (cut_run / "inputs.json").unlink(missing_ok=True)
        if content is not None:
            (cut_run / "inputs.json").write_text(content, encoding="utf-8")
        status, outputs = reconstruct(photos, "--resume")
        assert status == 1 and "inputs.json: expected the list of input files" in outputs


HOLDER = """
import sys, time
from streamvggt.folder_lock import FolderLock
from pathlib import Path
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes to the output folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_into_one_folder_names_the_process_of_the_first(reconstruct, photos, holder, pushed, tmp_path):
    status, outputs = reconstruct(photos)
    assert status == 1 and f"held by process {holder.pid} on" in outputs and not pushed
    status, outputs = reconstruct(photos, "--resume")
    assert status == 1 and f"held by process {holder.pid} on" in outputs
    holder.kill()  # which leaves no lock
    holder.wait()
    assert reconstruct(photos)[0] == 0 and not (tmp_path / "out" / ".lock").exists()


@pytest.mark.parametrize("moved", [False, True])
def test_a_folder_that_goes_away_ends_the_run(reconstruct, photos, monkeypatch, tmp_path, moved):
    out, push = tmp_path / "out", StreamSession.push

    def gone(self, frame):
        if self.memory.num_frames == 3:
            out.rename(tmp_path / "elsewhere")
            if not moved:
                shutil.rmtree(tmp_path / "elsewhere")
        return push(self, frame)

    monkeypatch.setattr(StreamSession, "push", gone)
    status, outputs = reconstruct(photos)
    assert status == 1 and outputs.count("it was deleted or moved") == 1 and "could not be" not in outputs
    assert not out.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no terminal that ends")
def test_the_end_of_the_terminal_is_an_interruption(reconstruct, photos, monkeypatch, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        status, outputs = cut(reconstruct, photos, monkeypatch, 2, number=signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert status == 130 and "interrupted after 3 frames" in outputs
    assert (tmp_path / "out" / "stream_state.pt").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no terminal that ends")
def test_nohup_is_respected(reconstruct, photos, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cut(reconstruct, photos, monkeypatch, 2, number=signal.SIGHUP)[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_frame_is_one_frame(reconstruct, photos):
    status, outputs = reconstruct(photos, "--max-frames", 1)
    assert status == 0 and "1 frame," in outputs


@pytest.mark.parametrize(
    "where, value",
    [
        (["frames"], None),
        (["frames"], []),
        (["frames", "skipped"], None),
        (["frames", "skipped"], [3]),
        (["frames", "skipped"], [["a", []]]),
        (["frames", "done"], "3"),
        (["timings"], 7),
        (["timings", "seconds"], "long"),
        (["timings", "seconds"], True),
        (["settings"], []),
        (["status"], 1),
        (["started"], {}),
        (["command"], None),
        (["exports"], "ply"),
        (["exports"], ["../../x"]),
        (["exports"], [None]),
        (["submaps"], []),
    ],
)
def test_a_record_of_other_types_is_rejected(reconstruct, cut_run, photos, where, value):
    record = record_of(cut_run)
    place = record
    for name in where[:-1]:
        place = place[name]
    place[where[-1]] = value
    (cut_run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    before = snapshot(cut_run)
    status, outputs = reconstruct(photos, "--resume")
    assert status == 1 and f"run.json is missing or damaged ({where[0]}" in outputs and "expected" in outputs
    assert snapshot(cut_run) == before


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"settings": 3}', '{"command": ["mine"]}', "[" * 100_000], ids=range(7)
)
def test_a_damaged_record_is_rejected(reconstruct, cut_run, photos, content):
    (cut_run / "run.json").unlink()
    if content is not None:
        (cut_run / "run.json").write_text(content, encoding="utf-8")
    before = snapshot(cut_run)
    status, outputs = reconstruct(photos, "--resume")
    assert status == 1 and "run.json is missing or damaged" in outputs and "choose another --out, or remove" in outputs
    assert snapshot(cut_run) == before


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise", "another"])
def test_without_a_readable_state_all_is_computed_again(reconstruct, cut_run, photos, pushed, damage):
    state = cut_run / "stream_state.pt"
    data = state.read_bytes()
    if damage == "another":
        torch.save({"format": 1, "weights": "x", "policy": "y"}, state)
    else:
        state.write_bytes({"missing": b"", "empty": b"", "cut": data[: len(data) // 2], "noise": bytes(5000)}[damage])
    if damage == "missing":
        state.unlink()
    status, outputs = reconstruct(photos, "--resume")
    assert status == 0 and "Warning: " in outputs and "all frames are computed again" in outputs
    assert len(pushed) == 6 and len(ReconstructionResult(cut_run)) == 6 and not state.exists()


def test_damage_to_kept_frames_is_noticed(reconstruct, cut_run, photos, pushed):
    """Also in what going on does not need: the depth of a frame, its image."""
    frame, image = cut_run / "frames" / "000001.npz", cut_run / "images" / "photo_1.jpg"
    for path, content, words in (
        (frame, flipped(frame, b"depth.npy"), "000001.npz"),
        (image, None, "photo_1.jpg is missing"),
        (image, b"", "photo_1.jpg is damaged"),
    ):
        intact = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        before = snapshot(cut_run)
        status, outputs = reconstruct(photos, "--resume")
        assert status == 1 and words in outputs and "continue with --resume" in outputs
        assert snapshot(cut_run) == before and len(pushed) == 0
        path.write_bytes(intact)
    assert reconstruct(photos, "--resume")[0] == 0 and pushed == ["photo_3", "photo_4", "photo_5"]


def test_damage_to_a_finished_result_is_noticed(reconstruct, photos, tmp_path):
    reconstruct(photos, "--max-frames", 3)
    frame, image = tmp_path / "out" / "frames" / "000001.npz", tmp_path / "out" / "images" / "photo_1.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    status, outputs = reconstruct(photos, "--max-frames", 3, "--resume")
    assert status == 1 and "1 of 3 images cannot be used" in outputs and "photo_1.jpg is missing" in outputs
    frame.write_bytes(flipped(frame, b"depth.npy"))
    status, outputs = reconstruct(photos, "--max-frames", 3, "--resume")
    assert status == 1 and "cannot read" in outputs and "000001.npz" in outputs


def test_resume_removes_nothing_outside_the_result(reconstruct, cut_run, photos, tmp_path):
    precious = tmp_path / "precious.jpg"
    precious.write_bytes(b"mine")
    path = cut_run / "frames" / "000002.npz"
    with np.load(path) as arrays:
        arrays = {**arrays, "name": "../../precious"}
    np.savez(path, **arrays)
    (cut_run / "stream_state.pt").unlink()  # so that all frames are removed and computed again
    status, outputs = reconstruct(photos, "--resume")
    assert precious.read_bytes() == b"mine"
    assert status == 0 and "all frames are computed again" in outputs and len(ReconstructionResult(cut_run)) == 6


def test_a_damaged_frame_can_be_dropped_as_the_error_describes(reconstruct, cut_run, photos):
    (cut_run / "frames" / "000002.npz").write_bytes(b"half")
    before = snapshot(cut_run)
    status, outputs = reconstruct(photos, "--resume")
    assert status == 1 and "000002.npz" in outputs and "remove it and the frames after it" in outputs
    assert snapshot(cut_run) == before
    (cut_run / "frames" / "000002.npz").unlink()
    status, outputs = reconstruct(photos, "--resume")
    assert status == 0 and "continues after 3 frames, but 2 are there: all frames are computed again" in outputs


def test_a_frame_that_is_missing_between_others(reconstruct, cut_run, photos):
    (cut_run / "frames" / "000001.npz").unlink()
    status, outputs = reconstruct(photos, "--resume")
    assert status == 1 and "000001.npz is missing" in outputs and "Remove the frames after the gap" in outputs


def test_frames_after_the_saved_state_are_computed_again(reconstruct, photos, pushed, monkeypatch, tmp_path):
    """A run killed some frames after its last save."""
    with monkeypatch.context() as patch:
        patch.setattr(StreamCheckpoint, "should_save", lambda self: self.session.memory.num_frames == 2)
        patch.setattr(StreamCheckpoint, "discard", lambda self: None)
        reconstruct(photos, "--max-frames", 5)
    record = record_of(tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text(json.dumps({**record, "status": "running"}), encoding="utf-8")
    (tmp_path / "out" / ".stream_state.part.pt").write_bytes(b"half")
    before = list(ReconstructionResult(tmp_path / "out"))
    pushed.clear()
    assert reconstruct(photos, "--resume")[0] == 0
    assert pushed == ["photo_2", "photo_3", "photo_4", "photo_5"]
    for old, new in zip(before, ReconstructionResult(tmp_path / "out"), strict=False):
        np.testing.assert_array_equal(old.depth, new.depth)
    assert not list((tmp_path / "out").glob("*stream_state*"))


def test_a_state_left_by_others_is_not_gone_on_from(reconstruct, cut_run, photos, pushed):
    """The frames were removed by hand: it is a new run, and a later --resume must not meet the old state."""
    for path in frame_files(cut_run):
        path.unlink()
    pushed.clear()
    assert reconstruct(photos, "--policy", "all", "--resume")[0] == 0  # nothing is there that could be mixed
    assert len(pushed) == 6 and not (cut_run / "stream_state.pt").exists()


def test_resume_of_nothing_is_a_start(reconstruct, photos, tmp_path):
    assert reconstruct(photos, "--resume")[0] == 0 and len(ReconstructionResult(tmp_path / "out")) == 6


# Cameras


@pytest.fixture
def webcam(monkeypatch):
    """A camera that never ends; Ctrl-C comes while it takes its fifth picture."""

    class Camera:
        def __init__(self, number):
            self.taken = 0

        def isOpened(self):
            return True

        def read(self):
            self.taken += 1
            if self.taken == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return True, np.full((42, 56, 3), self.taken, np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)


def test_interrupting_a_camera_is_its_end(reconstruct, webcam, tmp_path):
    status, outputs = reconstruct("0", "--formats", "ply,video")
    assert status == 0 and "5 frames" in outputs
    assert len(ReconstructionResult(tmp_path / "out")) == 5 and (tmp_path / "out" / "preview.mp4").exists()
    assert record_of(tmp_path / "out")["status"] == "finished"
    assert not (tmp_path / "out" / "stream_state.pt").exists()


def test_a_camera_has_no_past_to_continue_from(reconstruct, webcam, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(ResultWriter, "finish", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        reconstruct("0")
    reconstruct("0")
    before = snapshot(tmp_path / "out")
    status, outputs = reconstruct("0", "--resume")
    assert status == 1 and "is live, so a run cannot be resumed. Choose another --out" in outputs
    assert "streamvggt export" in outputs and snapshot(tmp_path / "out") == before
