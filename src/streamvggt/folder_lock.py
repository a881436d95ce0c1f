"""One writer per output folder, by a lock of the operating system: it ends with its process, however that ends."""

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
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond the text, which others may read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


NAME = ".lock"
_held: set[int] = set()


def _leave_to_parent() -> None:
    """A forked process (a worker that loads data) must not keep its parent's locks alive."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class FolderLock:
    """Holds an output folder for one run, within `with`; makes the folder if there is none.

        with FolderLock(out) as lock:
            for frame in frames:
                lock.check()  # the folder is still there
                ...

    The file `.lock` in it says who holds it. It is removed in the end, and so are folders that were made for it and are
    empty then.
    """

    def __init__(self, folder: Path):
        """
        Raises:
            BlockingIOError: another run holds the folder; the message says which.
            OSError: the folder cannot be made or written to.
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
                if not isinstance(error, BlockingIOError | PermissionError):  # PermissionError: so says Windows
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
            os.close(self._descriptor)  # its holder has just ended and removed it
        _held.add(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        text = f"process {os.getpid()} on {platform.node()} since {timestamp()}: {' '.join(sys.argv)}\n"
        os.write(self._descriptor, text.encode(errors="replace"))

    @property
    def is_here(self) -> bool:
        """The folder is where it was, with this lock in it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raises FileNotFoundError if the folder was deleted, moved or replaced meanwhile."""
        if not self.is_here:
            raise FileNotFoundError(
                f"{self.folder}: expected the folder that this run writes to, got none or another one: it was deleted "
                "or moved. Start again, or move it back and go on."
            )

    def release(self) -> None:
        if self.is_here:
            self.path.unlink()
        _held.discard(self._descriptor)
        os.close(self._descriptor)
        with suppress(OSError):  # they are not empty, as it should be
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
