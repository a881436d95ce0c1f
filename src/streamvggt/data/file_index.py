"""Cached listings of data set folders and index files.

The folders of a large source are listed once. The result is cached with the modification times of all listed folders
and files. The cache is used while these are unchanged.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from streamvggt.data.decode import read_json, read_npz
from streamvggt.files import atomic_write

CACHE_ENV = "STREAMVGGT_CACHE"
PACKAGE = Path(__file__).parents[1]


class FileIndex:
    """List folders and index files, and record the accesses. Hidden entries are ignored."""

    def __init__(self) -> None:
        self.stamps: dict[str, int | None] = {}

    def folders(self, folder: Path) -> list[str]:
        """Return the sorted names of the folders in a folder."""
        with os.scandir(self._looked_at(folder)) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())

    def files(self, folder: Path, suffix: str) -> list[str]:
        """Return the sorted names of the files with a suffix, without the suffix. Empty for missing folders."""
        try:
            with os.scandir(self._looked_at(folder)) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []  # missing folder or frames; `check` reports them
        return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))

    def exists(self, path: Path) -> bool:
        return self._looked_at(path).exists()

    def json(self, path: Path):
        return read_json(self._looked_at(path))

    def npz(self, path: Path, *keys: str) -> dict[str, np.ndarray]:
        return read_npz(self._looked_at(path), *keys)

    def file(self, path: Path) -> Path:
        """Record the access to a file of another type and return its path."""
        return self._looked_at(path)

    def _looked_at(self, path: Path) -> Path:
        self.stamps[str(path)] = _stamp(path)
        return path


def cached(maker: Callable[[FileIndex], dict], root: Path, *key: str) -> dict:
    """Return the result of `maker` for a root, from the cache if nothing has changed.

    Args:
        maker: Returns a JSON-serializable result. Its module and the shared reader code are part of the key.
        root: Folder of the data set.
        key: Further dependencies of the result.
    """
    code = inspect.getsource(inspect.getmodule(maker)), get_code(PACKAGE)
    identity = hashlib.sha256("\0".join([str(Path(root).resolve()), *code, *key]).encode()).hexdigest()[:24]
    path = cache_folder() / f"index-{identity}.json"
    try:
        known = json.loads(path.read_bytes())
        if all(_stamp(Path(name)) == stamp for name, stamp in known["stamps"].items()):
            return known["value"]
    except (OSError, ValueError, KeyError):
        pass  # no cache yet, or one of an older version
    listing = FileIndex()
    value = maker(listing)
    try:
        with atomic_write(path) as unfinished:
            unfinished.write_text(
                json.dumps({"root": str(root), "stamps": listing.stamps, "value": value}), encoding="utf-8"
            )
    except OSError:
        pass  # a failed cache write only costs time
    return value


@functools.cache
def get_code(package: Path) -> str:
    """Return a digest of the reader code: the sources in `data` and `datasets` of a package."""
    digest = hashlib.sha256()
    for path in sorted(path for name in ("data", "datasets") for path in (package / name).rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\0".encode() + content)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return $STREAMVGGT_CACHE, or the cache folder of the user."""
    chosen = os.environ.get(CACHE_ENV)
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streamvggt"


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
