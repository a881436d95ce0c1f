"""inputs.json: the input files of a result, so that a run resumes only with the same files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from streamvggt.files import atomic_write
from streamvggt.words import counted

NAME = "inputs.json"
Input = list[str | int]
"""Name, size in bytes, modification time in nanoseconds."""


def write_inputs(out: Path, files: Sequence[Path]) -> None:
    """Write the input files of a new run in frame order. The list is empty for cameras and URLs."""
    lines = ",\n".join(json.dumps(entry) for entry in described(files))
    with atomic_write(out / NAME, make_folder=False) as unfinished:
        unfinished.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def check_inputs(out: Path, files: Sequence[Path]) -> None:
    """Compare the input files of a resumed run with those of its start.

    Raises:
        ValueError: If files were added, removed or changed, or inputs.json is missing or damaged.
    """
    before, now = read_inputs(out / NAME), described(files)
    if before != now:
        raise ValueError(
            f"{out}: expected the {counted(len(before), 'input file')} that it began with, got others: "
            f"{difference(before, now)}. Put them back as they were, or choose another --out."
        )


def described(files: Sequence[Path]) -> list[Input]:
    """Describe files by their names relative to the common folder, independent of its location and spelling.

    File names are encoded as UTF-8, independent of the locale.
    """
    if not files:
        return []
    folder = os.path.commonpath([os.path.abspath(file.parent) for file in files])
    entries: list[Input] = []
    for file in files:
        name = os.fsencode(os.path.relpath(os.path.abspath(file), folder)).decode("utf-8", "surrogateescape")
        try:
            status = file.stat()
        except OSError:  # the iteration skips the frame and reports the reason
            entries.append([name, -1, -1])
        else:
            entries.append([name, status.st_size, status.st_mtime_ns])
    return entries


def read_inputs(path: Path) -> list[Input]:
    """Read inputs.json.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(
        isinstance(entry, list) and [type(value) for value in entry] == [str, int, int] for entry in entries
    ):
        raise ValueError(
            f"{path}: expected the list of input files, got a missing or damaged file. Choose another --out, or remove "
            f"{path.parent} to start again."
        )
    return entries


def difference(before: Sequence[Input], now: Sequence[Input]) -> str:
    """Describe the difference between two file lists as a phrase."""
    old, new = ({entry[0]: entry[1:] for entry in entries} for entries in (before, now))
    found = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in old if name in new and old[name] != new[name]],
    }
    words = [f"{few(names)} {what}" for what, names in found.items() if names]
    return "; ".join(words) or "the order changed"


def few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
