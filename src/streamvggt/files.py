"""Files that are either whole or not there, that outlive a power failure, and whose damage is noticed."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SEAL = b"\nsha256 "
SEAL_BYTES = len(SEAL) + 2 * hashlib.sha256().digest_size
ZIP_END = b"PK\5\6"
ZIP_END_BYTES = 22  # without the comment, whose length is in the last two
CHUNK_BYTES = 1 << 20


def temporary_path(path: Path) -> Path:
    """Where `atomic_write` writes; a process that is killed may leave it behind."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


@contextmanager
def atomic_write(path: Path, *, sealed: bool = False, make_folder: bool = True) -> Iterator[Path]:
    """A path to write to, in the folder of `path` and with its suffix.

    When the block ends well the file takes the place of `path`, and is on the disk; when it raises, nothing is left
    behind. Its mode is that of any new file, whatever the writer gave it.

    Args:
        sealed: append a checksum, which `check_seal` compares.
        make_folder: make the folder if there is none. False where it was made when the work began: a folder that is
            missing then has been deleted or moved meanwhile.

    Raises:
        FileNotFoundError: there is no such folder, and `make_folder` is False.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.unlink(missing_ok=True)  # of a run that was killed
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        if sealed:
            seal(temporary)
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(folder: Path, marker: str) -> Iterator[Path]:
    """As `atomic_write`, for a folder to fill; one that was there before is replaced as a whole.

    Args:
        mark: a path inside, by which such a folder is known.

    Raises:
        FileExistsError: there is a folder without the mark: it is not ours to replace.
    """
    if folder.exists() and not (folder / marker).exists():
        raise FileExistsError(f"{folder} was not made by this program and would be replaced: choose another --out")
    temporary, previous = (folder.with_name(f".{folder.name}.{word}") for word in ("part", "previous"))
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in (temporary, *temporary.rglob("*")):
            sync(path)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(folder, previous)  # a folder cannot be moved over a filled one
        os.replace(temporary, folder)
        sync(folder.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # there is no such call
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(path: Path) -> None:
    """Append a checksum of all that is in a file.

    Readers of .npy files stop before it; in zip archives (.npz, .pt) it is the comment.
    """
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - ZIP_END_BYTES))
        if file.read().startswith(ZIP_END):
            file.seek(size - 2)
            file.write(SEAL_BYTES.to_bytes(2, "little"))
        digest = _sha256(file, size)
        file.seek(size)
        file.write(SEAL + digest)


def is_sealed(path: Path) -> bool:
    """Whether a checksum is at the end of a file, be it right or wrong."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - SEAL_BYTES))
        return file.read().startswith(SEAL)


def check_seal(path: Path) -> None:
    """Compare a file with the checksum that `seal` has appended.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it differs, or there is none.
    """
    with open(path, "rb") as file:
        size = max(0, file.seek(0, os.SEEK_END) - SEAL_BYTES)
        file.seek(size)
        end = file.read()
        if not end.startswith(SEAL):
            raise ValueError(
                f"{path} is damaged: expected a checksum at its end, got none. Was it cut off, or is it of another "
                "version?"
            )
        digest = _sha256(file, size)
    if end != SEAL + digest:
        raise ValueError(
            f"{path} is damaged: expected the checksum {end[len(SEAL) :].decode(errors='replace')}, "
            f"got {digest.decode()}. Take it from a copy, or remove it."
        )


def _sha256(file, size: int) -> bytes:
    """Of the first `size` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(min(CHUNK_BYTES, size)):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()


def link_or_copy(source: Path, target: Path) -> None:
    """Another name for a file, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
