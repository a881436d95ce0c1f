"""Copy JPEG files without metadata, so that results store camera images without encoding them again."""

from __future__ import annotations

import re
from collections.abc import Iterator

KEPT = {
    *(0xC0, 0xC1, 0xC2),  # frame headers: baseline, extended, progressive
    *(0xC4, 0xDB, 0xDD),  # Huffman tables, quantization tables, restart interval
    0xEE,  # Adobe: color transform
}
JFIF = b"\xff\xe0"
SCAN, END = 0xDA, 0xD9
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The next marker after compressed data, in which 0xFF is followed by 0. Restart markers are part of the data."""


def without_metadata(content: bytes) -> bytes | None:
    """Return a JPEG file with its pixels alone, which decode to the same values.

    The copy has no EXIF, XMP, comments, color profile, previews or images appended to the file. These may contain the
    place and the owner of the camera.

    Returns:
        The content of the new file. None if the file has another structure.
    """
    try:
        return b"\xff\xd8" + b"".join(_kept_parts(content)) + b"\xff\xd9"
    except (ValueError, IndexError):
        return None


def _kept_parts(content: bytes) -> Iterator[bytes]:
    if not content.startswith(b"\xff\xd8"):
        raise ValueError
    position, has_scan = 2, False
    while True:
        while content[position] == content[position + 1] == 0xFF:  # fill bytes
            position += 1
        if content[position] != 0xFF:
            raise ValueError
        marker = content[position + 1]
        if marker == END and has_scan:
            return
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        end = position + 2 + length
        if length < 2 or end >= len(content):
            raise ValueError
        if marker == SCAN:
            found = SCAN_END.search(content, end)
            if found is None:
                raise ValueError
            end, has_scan = found.start(), True
            yield content[position:end]
        elif marker in KEPT:
            yield content[position:end]
        elif content[position : position + 2] == JFIF and content[position + 4 : position + 9] == b"JFIF\0":
            yield JFIF + b"\0\x10" + content[position + 4 : position + 16] + b"\0\0"  # without thumbnail
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):  # application data, comment
            raise ValueError
        position = end
