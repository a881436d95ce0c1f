"""Exclusive lock on an output folder. The operating system releases the lock when the process ends."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

from streamvggt.provenance import timestamp

if os.name == "nt":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond the text, because a locked range is unreadable
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


NAME = ".lock"
_held: set[int] = set()


def _leave_to_parent() -> None:
    """Close the locks in a forked process, so that data-loading workers do not keep the locks of their parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class FolderLock:
    """Lock an output folder for one run. Creates a missing folder.

        with FolderLock(out) as lock:
            for frame in frames:
                lock.check()  # raises if the folder was deleted or moved
                ...

    The file `.lock` in the folder contains process id, host, time and command. `release` deletes the file, and the
    folders that the lock created if they are empty.
    """

    def __init__(self, folder: Path):
        """Lock the folder.

        Args:
            folder: Output folder.

        Raises:
            BlockingIOError: If another run has locked the folder. The message names the run.
            OSError: If the folder cannot be created or written to, or the file system does not support locks.
        """
        self.folder = folder
        self.path = folder / NAME
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _try_lock(self._descriptor)
            except OSError as error:
                os.close(self._descriptor)
                if not isinstance(error, BlockingIOError | PermissionError):  # PermissionError: on Windows
                    raise OSError(
                        error.errno,
                        f"{folder}: expected a file system with locks, got '{error.strerror}'. Choose another folder",
                    ) from error
                raise BlockingIOError(
                    f"{folder}: expected a folder that no other run writes to, got one that is held by "
                    f"{self._holder()}. Wait for its end, or choose another folder."
                ) from error
            if self.is_here:
                break
            os.close(self._descriptor)  # the previous run deleted the file between open and lock
        _held.add(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        text = f"process {os.getpid()} on {platform.node()} since {timestamp()}: {' '.join(sys.argv)}\n"
        os.write(self._descriptor, text.encode(errors="replace"))

    @property
    def is_here(self) -> bool:
        """Whether the path of the lock file still refers to the locked file."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Check that the folder still contains the lock file.

        Raises:
            FileNotFoundError: If the folder was deleted, moved or replaced.
        """
        if not self.is_here:
            raise FileNotFoundError(
                f"{self.folder}: expected the folder that this run writes to, got none or another one: it was deleted "
                "or moved. Start again, or move it back and continue."
            )

    def release(self) -> None:
        """Delete the lock file, release the lock and delete the created folders that are empty."""
        if self.is_here:
            self.path.unlink()
        _held.discard(self._descriptor)
        os.close(self._descriptor)
        with suppress(OSError):  # the folders are not empty
            for folder in self._made:
                folder.rmdir()

    def _holder(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8").strip() or "another process"
        except OSError:
            return "another process"

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_) -> None:
        self.release()
