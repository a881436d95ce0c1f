"""Frames that threads prepare ahead come in order, a few at a time, with errors at their place, and end the threads."""

import threading
from contextlib import closing
from functools import partial

import numpy as np
import pytest
from PIL import Image

from streamvggt.stream.frames import load_frames
from streamvggt.stream.preprocess import preprocess_image
from streamvggt.stream.read_ahead import read_ahead

COUNT = 20


@pytest.fixture(autouse=True)
def no_threads_left():
    before = set(threading.enumerate())
    yield
    assert not [thread.name for thread in set(threading.enumerate()) - before]


def test_results_keep_their_order_although_the_first_is_the_last_to_be_ready():
    others = threading.Event()

    def first():
        assert others.wait(10)
        return 0

    def other(number):
        if number == 3:
            others.set()
        return number

    tasks = (first if number == 0 else partial(other, number) for number in range(COUNT))
    assert list(read_ahead(tasks, 4)) == list(range(COUNT))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_reading_runs_a_few_frames_ahead_and_no_further(num_threads):
    tasks_made, calls = [], threading.Semaphore(0)

    def tasks():
        for number in range(COUNT):
            tasks_made.append(number)
            yield lambda number=number: (calls.release(), number)[1]

    with closing(read_ahead(tasks(), num_threads)) as results:
        for taken in range(1, 6):
            next(results)
            # The next num_threads + 1 are computed while the consumer does nothing ...
            for _ in range(num_threads + 2 if taken == 1 else 1):
                assert calls.acquire(timeout=10)
            # ... and the reader waits for room.
            assert len(tasks_made) <= taken + num_threads + 1
        assert not calls.acquire(blocking=False)


@pytest.mark.parametrize("place", ["task", "reader"])
def test_an_error_comes_after_all_earlier_frames(place):
    def fail():
        raise OSError("the disk is gone")

    def tasks():
        for number in range(COUNT):
            if number == 7:
                if place == "reader":
                    fail()
                yield fail
            yield lambda number=number: number

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for number in read_ahead(tasks(), 3):
            found.append(number)
    assert found == list(range(7))


def test_the_tasks_are_closed_in_the_thread_that_iterates_them():
    """A video file is closed where it was opened, also if the consumer stops early."""
    closed = []

    def tasks():
        try:
            while True:
                yield threading.get_ident
        finally:
            closed.append(threading.get_ident())

    results = read_ahead(tasks(), 2)
    assert next(results) != threading.get_ident()
    assert closed == []
    results.close()
    assert len(closed) == 1 and closed[0] != threading.get_ident()


def write_photos(folder, count):
    noise = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(noise.integers(0, 256, (90, 160, 3), np.uint8)).save(folder / f"{number:02d}.png")


def test_photos_are_those_that_are_prepared_one_by_one(tmp_path):
    write_photos(tmp_path, 12)
    frames = list(load_frames(tmp_path, size=56))
    assert [frame.name for frame in frames] == [f"{number:02d}" for number in range(12)]
    for frame in frames:
        with Image.open(tmp_path / f"{frame.name}.png") as image:
            alone = preprocess_image(image, size=56, index=frame.index, name=frame.name)
            # The preparation of the reference implementation.
            published = np.asarray(image.resize((56, 28), Image.Resampling.BICUBIC)).astype(np.float32) / 255
        assert frame.index == alone.index and np.array_equal(frame.original, alone.original)
        assert np.array_equal(frame.image, alone.image) and np.array_equal(frame.image, published.transpose(2, 0, 1))


def test_an_unreadable_photo_is_skipped_at_its_place(tmp_path):
    write_photos(tmp_path, 8)
    (tmp_path / "05.png").write_bytes(b"no photo")
    source = load_frames(tmp_path, size=56)
    for frame in source:
        assert bool(source.skipped) == (frame.index > 5)
    with pytest.raises(ValueError, match=r"05\.png"):
        for frame in load_frames(tmp_path, size=56, strict=True):
            last = frame.index
    assert last == 4
