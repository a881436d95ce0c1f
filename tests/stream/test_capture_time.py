"""Capture times of photos: from EXIF into frames and TUM files, or not at all."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from streamvggt.stream.capture_time import capture_time, rising_times
from streamvggt.stream.frames import load_frames


def photo(path, clock=None, digits=None, offset=None):
    """Write a photo with EXIF tags."""
    exif = Image.Exif()
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    for tag, value in (
        (ExifTags.Base.DateTimeOriginal, clock),
        (ExifTags.Base.SubsecTimeOriginal, digits),
        (ExifTags.Base.OffsetTimeOriginal, offset),
    ):
        if value is not None:
            tags[tag] = value
    Image.fromarray(np.zeros((28, 42, 3), np.uint8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    "tags, seconds",
    [
        (("1970:01:02 00:00:00",), 86400.0),
        (("1970:01:02 00:00:00", "25"), 86400.25),
        (("1970:01:02 00:00:00", "050", "+01:30"), 86400.05 - 5400),
        (("1970:01:02 00:00:00", None, "-02:00"), 86400.0 + 7200),
        (("0000:00:00 00:00:00",), None),
        (("yesterday",), None),
        ((), None),
    ],
)
def test_the_time_of_a_photo(tmp_path, tags, seconds):
    for suffix in ("jpg", "webp"):
        with Image.open(photo(tmp_path / f"photo.{suffix}", *tags)) as image:
            assert capture_time(image) == (seconds if seconds is None else pytest.approx(seconds, abs=1e-6))


def test_times_that_do_not_rise_are_no_times():
    assert rising_times([1.0, 2.0, 2.5]) == [1.0, 2.0, 2.5]
    for times in ([1.0, 1.0], [2.0, 1.0], [1.0, None, 3.0]):
        assert set(rising_times(times)) == {None}


def test_photos_carry_their_times_and_a_stride_keeps_them(tmp_path):
    for number in range(4):
        photo(tmp_path / f"{number}.jpg", f"2026:11:26 10:00:0{number}", "5")
    times = [frame.time for frame in load_frames(tmp_path, size=42)]
    assert np.diff(times).tolist() == [1, 1, 1] and times[0] % 1 == 0.5
    assert [frame.time for frame in load_frames(tmp_path, size=42, stride=2)] == times[::2]
    photo(tmp_path / "2.jpg")
    assert [frame.time for frame in load_frames(tmp_path, size=42)] == [None] * 4
    assert [frame.time for frame in load_frames(tmp_path, size=42, max_frames=2)] == times[:2]
