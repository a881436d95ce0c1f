"""Files that are either whole or not there: written beside their place, then moved into it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def unfinished(path: Path) -> Path:
    """Where `atomic_write` writes; a process that is killed may leave it behind."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, in the folder of `path` (made if needed) and with its suffix.

    When the block ends well the file takes the place of `path`; when it raises, nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path, mark: str) -> Iterator[Path]:
    """As `atomic_write`, for a folder to fill; one that was there before is replaced as a whole.

    Args:
        mark: a path inside, by which such a folder is known.

    Raises:
        FileExistsError: there is a folder without the mark: it is not ours to replace.
    """
    if folder.exists() and not (folder / mark).exists():
        raise FileExistsError(f"{folder} was not made by this program and would be replaced: choose another --out")
    temporary, previous = (folder.with_name(f".{folder.name}.{word}") for word in ("part", "previous"))
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(folder, previous)  # a folder cannot be moved over a filled one
        os.replace(temporary, folder)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Another name for a file, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
