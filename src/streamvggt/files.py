"""Atomic, durable file writes, and checksums that detect damaged files."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SEAL = b"\nsha256 "
SEAL_BYTES = len(SEAL) + 2 * hashlib.sha256().digest_size
ZIP_END = b"PK\5\6"
ZIP_END_BYTES = 22  # without the comment; the last two bytes are the length of the comment
CHUNK_BYTES = 1 << 20


def temporary_path(path: Path) -> Path:
    """Return the temporary file of `atomic_write`. A killed process leaves the temporary file behind."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


@contextmanager
def atomic_write(path: Path, *, sealed: bool = False, make_folder: bool = True, durable: bool = True) -> Iterator[Path]:
    """Write a file atomically.

    If the block succeeds, the temporary file replaces `path`. If the block raises, the temporary file is deleted. The
    file gets the default mode of new files.

    Args:
        path: File to write.
        sealed: Append a checksum for `check_seal`.
        make_folder: Create a missing folder. Use False if the folder was created at the start of the run: a missing
            folder then was deleted or moved.
        durable: Flush the file and its folder to disk. Use False for files that are deleted when the process ends.

    Yields:
        Temporary path to write to, in the folder of `path` and with its suffix.

    Raises:
        FileNotFoundError: If the folder does not exist and `make_folder` is False.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.unlink(missing_ok=True)  # of a run that was killed
    temporary.touch()
    mode = temporary.stat().st_mode
    with _named_at_the_end(temporary, path, durable):
        yield temporary
        if sealed:
            seal(temporary)
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)


def atomic_write_bytes(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Write a file atomically, as `atomic_write`, in less time. The folder must exist.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    temporary = temporary_path(path)
    temporary.unlink(missing_ok=True)  # of a run that was killed
    with _named_at_the_end(temporary, path, durable):
        temporary.write_bytes(content)


@contextmanager
def _named_at_the_end(temporary: Path, path: Path, durable: bool) -> Iterator[None]:
    """Replace `path` by the temporary file if the block succeeds, or else delete the temporary file."""
    try:
        yield
        if durable:
            sync(temporary)
        if path.is_dir():
            raise IsADirectoryError(f"{path}: expected a file to replace, got a folder. Move or remove it.")
        os.replace(temporary, path)
        if durable:
            sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(folder: Path, marker: str) -> Iterator[Path]:
    """Write a folder atomically. An existing folder is replaced.

    Args:
        folder: Folder to write.
        marker: Relative path that identifies folders of this kind.

    Yields:
        Temporary folder to fill.

    Raises:
        FileExistsError: If `folder` exists and does not contain `marker`.
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
            os.replace(folder, previous)  # os.replace requires an empty target folder
        os.replace(temporary, folder)
        sync(folder.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot flush folders
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(path: Path) -> None:
    """Append the SHA-256 checksum of a file to the file.

    Readers of .npy files ignore the checksum. In zip archives (.npz, .pt) the checksum is the archive comment.
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
    """Return whether a file ends with a checksum. The checksum is not verified."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - SEAL_BYTES))
        return file.read().startswith(SEAL)


def check_seal(path: Path) -> None:
    """Verify the checksum that `seal` appended to a file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the checksum is missing or differs.
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
    """Return the SHA-256 of the first `size` bytes in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(min(CHUNK_BYTES, size)):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()


def read_text(path: Path) -> str:
    """Read a UTF-8 text file. Editors on Windows begin such files with a byte order mark, which is left out.

    Raises:
        ValueError: If the file has another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got other bytes ({error}). Save the file as UTF-8.") from error


def link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link, or a copy if the file system does not support hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
