"""Read the capture time of photos from EXIF."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from PIL import ExifTags, Image

OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")


def capture_time(image: Image.Image) -> float | None:
    """Return the time of capture in seconds since 1970-01-01 UTC.

    Reads DateTimeOriginal, SubSecTimeOriginal and OffsetTimeOriginal. Without an offset, the clock of the camera counts
    as UTC, so that differences between photos of one camera are right.

    Args:
        image: An open image file. Its pixels are not read.

    Returns:
        Seconds, or None if the file has no valid DateTimeOriginal.
    """
    try:
        tags = image.getexif().get_ifd(ExifTags.IFD.Exif)
        clock = datetime.strptime(_text(tags, ExifTags.Base.DateTimeOriginal), "%Y:%m:%d %H:%M:%S")
        digits = _text(tags, ExifTags.Base.SubsecTimeOriginal)
        offset = OFFSET.fullmatch(_text(tags, ExifTags.Base.OffsetTimeOriginal))
    except Exception:  # Pillow's readers raise anything
        return None
    seconds = clock.replace(tzinfo=UTC).timestamp()
    if digits.isdecimal():
        seconds += float(f"0.{digits}")
    if offset:
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3])).total_seconds()
        seconds -= ahead if offset[1] == "+" else -ahead
    return seconds


def rising_times(times: Sequence[float | None]) -> Sequence[float | None]:
    """Return the times if all are known and each is later than the one before, else None for all.

    Trajectory files need rising times. Photos of one second without fractions, or in another order, have none.
    """
    is_rising = None not in times and all(first < second for first, second in pairwise(times))
    return times if is_rising else [None] * len(times)


def _text(tags: dict, tag: int) -> str:
    value = tags.get(tag, "")
    return value.decode("ascii", "ignore").strip("\0 ") if isinstance(value, bytes) else str(value).strip("\0 ")
