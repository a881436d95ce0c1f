"""File names that every supported file system can store."""

import re
from pathlib import PureWindowsPath

MOST_BYTES = 200
"""Maximum length in UTF-8 bytes. File systems allow 255; the rest is for suffixes, numbers and temporary names."""

_REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff]")
"""Control characters, path separators, and surrogates for bytes that do not decode as text."""


def is_plain(name: str) -> bool:
    """Return whether `name` is a single path component and valid text on every platform."""
    return name not in ("", ".", "..") and not _REFUSED.search(name) and PureWindowsPath(name).name == name


def storable(name: str) -> str:
    """Convert `name` to a plain name of at most `MOST_BYTES` bytes, with `_` for invalid characters.

    Different names can map to the same result.
    """
    name = _REFUSED.sub("_", name)
    name = name.encode()[:MOST_BYTES].decode(errors="ignore")
    return name if is_plain(name) else f"_{name.replace(':', '_')}"
