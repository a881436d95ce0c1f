"""Names of files that every file system can store, made and judged in one place."""

import re
from pathlib import PureWindowsPath

MOST_BYTES = 200
"""Longest name, in UTF-8: file systems store 255, and a suffix, a number or the mark of an unfinished file is added."""

_REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff]")
"""Control characters, separators of folders, and bytes of a file name that are not text."""


def is_plain(name: str) -> bool:
    """Whether a name stays in the folder it is put into and can be written as text, on every system."""
    return name not in ("", ".", "..") and not _REFUSED.search(name) and PureWindowsPath(name).name == name


def storable(name: str) -> str:
    """The plain name that is most like `name`: at most `MOST_BYTES` long, `_` for what cannot be stored.

    Different names can become equal.
    """
    name = _REFUSED.sub("_", name)
    name = name.encode()[:MOST_BYTES].decode(errors="ignore")
    return name if is_plain(name) else f"_{name.replace(':', '_')}"
