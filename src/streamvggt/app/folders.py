"""Temporary folders that are gone when nobody needs them any longer, even after a kill."""

import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "streamvggt-"


class TemporaryRoot:
    """A folder of this process that only its user can read (mode 0700).

    A lock beside it is held as long as the process lives. Making a root removes those whose lock nobody holds, which
    killed processes have left.
    """

    def __init__(self) -> None:
        remove_abandoned()
        self.path = Path(tempfile.gettempdir()) / (PREFIX + secrets.token_hex(8))
        lock = self.path.with_suffix(".lock")
        self._lock = FileLock(lock, mode=0o600)
        self._lock.acquire()  # first, so that nobody takes the folder for abandoned
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()


def remove_abandoned() -> None:
    """Remove the folders that killed processes of this user have left in the folder for temporary files."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        folder = path.with_suffix("")
        if path.is_symlink() or folder.is_symlink():
            continue
        try:
            with FileLock(path, blocking=False):
                shutil.rmtree(folder, ignore_errors=True)
                path.unlink()
        except (Timeout, OSError):  # a process that lives uses it, or another has removed it
            continue


class SharedFolder:
    """A folder that several threads use and one removes: it goes when the last of them is done, and stays away."""

    def __init__(self, path: Path):
        self.path = path
        self._num_users = 0
        self._is_removed = False
        self._changed = threading.Condition()

    @contextmanager
    def use(self) -> Iterator[Path]:
        """Keep the folder while the block runs.

        Raises:
            ValueError: If it has been removed.
        """
        with self._changed:
            if self._is_removed:
                raise ValueError("This scene is not there any longer: reload the page.")
            self._num_users += 1
        try:
            yield self.path
        finally:
            with self._changed:
                self._num_users -= 1
                self._clear()

    def remove(self) -> None:
        """Remove the folder, now or when its users are done; returns at once."""
        with self._changed:
            self._is_removed = True
            self._clear()

    def wait_removed(self, seconds: float) -> None:
        """Wait until the users of a removed folder are done, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._num_users, seconds)

    def _clear(self) -> None:
        if self._is_removed and not self._num_users:
            shutil.rmtree(self.path, ignore_errors=True)
            self._changed.notify_all()
