"""Frames that threads write come in order, a few at a time, and an error of writing is not lost."""

import errno
import os
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from tqdm import TMonitor

from streamvggt.export import BackgroundWriter, ReconstructionResult, ResultWriter, frame_files
from streamvggt.export.background_writer import MAX_PENDING
from streamvggt.frame import Frame
from streamvggt.prediction import Prediction

COUNT = 12


@pytest.fixture(autouse=True)
def no_threads_left():
    before = set(threading.enumerate())
    yield
    assert not [thread.name for thread in set(threading.enumerate()) - before if not isinstance(thread, TMonitor)]


def frame_and_prediction(number: int) -> tuple[Frame, Prediction]:
    pixels = np.full((28, 42, 3), number, np.uint8)
    image = torch.from_numpy(pixels).movedim(-1, 0).float() / 255
    pose = torch.tensor([[[number, 0, 0, 0, 0, 0, 1, 1, 1]]], dtype=torch.float32)
    depth = torch.full((1, 1, 28, 42, 1), number + 1.0)
    frame = Frame(image, number, f"photo_{number}", pixels, np.eye(3), (0, 0, 28, 42))
    return frame, Prediction((28, 42), pose_enc=pose, depth=depth, depth_conf=depth[..., 0])


FRAMES = [frame_and_prediction(number) for number in range(COUNT)]


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def content(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_result_is_that_of_writing_one_by_one(tmp_path, monkeypatch):
    plain = ResultWriter(tmp_path / "plain")
    for frame, prediction in FRAMES:
        plain.add(frame, prediction)
    write_image, second = ResultWriter.write_image, threading.Event()

    def first_image_last(self, frame):
        if frame.index == 0:
            assert second.wait(10)
        write_image(self, frame)
        if frame.index == 1:
            second.set()

    monkeypatch.setattr(ResultWriter, "write_image", first_image_last)
    with BackgroundWriter(ResultWriter(tmp_path / "threads")) as writer:
        for frame, prediction in FRAMES:
            writer.add(frame, prediction)
        writer.flush()
        assert writer.writer.num_frames == COUNT
    assert content(tmp_path / "threads") == content(tmp_path / "plain")


def test_a_slow_disk_holds_up_the_stream(tmp_path, monkeypatch):
    finish, may_finish, added = ResultWriter.finish, threading.Semaphore(0), []

    def slow(self, frame, prediction):
        assert may_finish.acquire(timeout=10)
        assert added[-1] - self.num_frames <= MAX_PENDING
        return finish(self, frame, prediction)

    monkeypatch.setattr(ResultWriter, "finish", slow)
    with BackgroundWriter(ResultWriter(tmp_path)) as writer:
        for frame, prediction in FRAMES[:MAX_PENDING]:
            added.append(frame.index)
            writer.add(frame, prediction)  # does not wait
        assert not frame_files(tmp_path)
        for frame, prediction in FRAMES[MAX_PENDING:]:
            may_finish.release()
            added.append(frame.index)
            writer.add(frame, prediction)  # waits for that one frame
            assert writer.writer.num_frames >= frame.index - MAX_PENDING + 1
        may_finish.release(MAX_PENDING)


@pytest.mark.parametrize("step", ["write_image", "finish"])
@pytest.mark.parametrize("next_call", ["add", "flush"])
def test_a_full_disk_surfaces_at_the_next_call(tmp_path, monkeypatch, step, next_call):
    really, tried = getattr(ResultWriter, step), threading.Event()

    def filling_up(self, frame, *prediction):
        if frame.index == 3:
            tried.set()
            full_disk()
        return really(self, frame, *prediction)

    monkeypatch.setattr(ResultWriter, step, filling_up)
    with BackgroundWriter(ResultWriter(tmp_path)) as writer:
        for frame, prediction in FRAMES[:4]:
            writer.add(frame, prediction)
        assert tried.wait(10)
        with pytest.raises(OSError, match=r"cannot write frame 3 \(photo_3\) to .* 3 finished frames kept") as caught:
            if next_call == "flush":
                writer.flush()
            for frame, prediction in FRAMES[4:]:
                writer.add(frame, prediction)
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="cannot write frame 3"):  # and is not forgotten
            writer.flush()
    assert [frame.index for frame in ReconstructionResult(tmp_path)] == [0, 1, 2]


def test_no_frame_is_written_after_a_failed_one(tmp_path, monkeypatch):
    finish = ResultWriter.finish
    monkeypatch.setattr(
        ResultWriter, "finish", lambda self, *pair: full_disk() if pair[0].index == 0 else finish(self, *pair)
    )
    # A later call reports the error if the first frame has already failed.
    with BackgroundWriter(ResultWriter(tmp_path)) as writer, suppress(OSError):
        for frame, prediction in FRAMES[:MAX_PENDING]:
            writer.add(frame, prediction)
    assert not frame_files(tmp_path)


def test_a_name_that_leads_out_is_not_written(tmp_path):
    frame, prediction = FRAMES[0]
    with (
        pytest.raises(ValueError, match=r"name: expected a plain file name, got '\.\./x'"),
        BackgroundWriter(ResultWriter(tmp_path / "out")) as writer,
    ):
        writer.add(replace(frame, name="../x"), prediction)
        writer.flush()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["trajectory.txt"]
