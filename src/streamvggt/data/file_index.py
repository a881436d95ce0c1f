"""Listings of a data set's folders and index files that remember what they looked at.

A source with 100,000 frames lists its folders once; the result is kept in a cache folder with the time of change of
everything looked at. It is used as long as none of these changed, and made anew otherwise.
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
    """Looks at folders and index files, and remembers at which. Hidden entries are never listed."""

    def __init__(self) -> None:
        self.stamps: dict[str, int | None] = {}

    def folders(self, folder: Path) -> list[str]:
        """Names of the folders in a folder, sorted."""
        with os.scandir(self._looked_at(folder)) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())

    def files(self, folder: Path, suffix: str) -> list[str]:
        """Names of the files that end with `suffix`, without it, sorted; none where there is no such folder."""
        try:
            with os.scandir(self._looked_at(folder)) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []  # a scene that lost its frames, or a folder that is none: nothing to train on, and told by checks
        return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))

    def exists(self, path: Path) -> bool:
        return self._looked_at(path).exists()

    def json(self, path: Path):
        return read_json(self._looked_at(path))

    def npz(self, path: Path, *keys: str) -> dict[str, np.ndarray]:
        return read_npz(self._looked_at(path), *keys)

    def file(self, path: Path) -> Path:
        """For files of other kinds: the path, remembered."""
        return self._looked_at(path)

    def _looked_at(self, path: Path) -> Path:
        self.stamps[str(path)] = _stamp(path)
        return path


def cached(maker: Callable[[FileIndex], dict], root: Path, *key: str) -> dict:
    """What `maker` says of a root, from the cache if nothing that it looked at has changed since.

    Args:
        maker: gives what JSON can hold; its module and the code that readers share are part of the key.
        key: what else the result depends on.
    """
    code = inspect.getsource(inspect.getmodule(maker)), code_of(PACKAGE)
    identity = hashlib.sha256("\0".join([str(Path(root).resolve()), *code, *key]).encode()).hexdigest()[:24]
    path = cache_folder() / f"index-{identity}.json"
    try:
        known = json.loads(path.read_bytes())
        if all(_stamp(Path(name)) == stamp for name, stamp in known["stamps"].items()):
            return known["value"]
    except (OSError, ValueError, KeyError):
        pass  # none yet, or of a version that is gone
    listing = FileIndex()
    value = maker(listing)
    try:
        with atomic_write(path) as unfinished:
            unfinished.write_text(
                json.dumps({"root": str(root), "stamps": listing.stamps, "value": value}), encoding="utf-8"
            )
    except OSError:
        pass  # a cache that cannot be written costs time and nothing else
    return value


@functools.cache
def code_of(package: Path) -> str:
    """Digest of what readers of data sets are made of: the sources in `data` and `datasets` of a package."""
    digest = hashlib.sha256()
    for path in sorted(path for name in ("data", "datasets") for path in (package / name).rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\0".encode() + content)
    return digest.hexdigest()


def cache_folder() -> Path:
    """$STREAMVGGT_CACHE, or the user's cache folder."""
    chosen = os.environ.get(CACHE_ENV)
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streamvggt"


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
