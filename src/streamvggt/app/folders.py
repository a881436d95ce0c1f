"""Temporary folders that are deleted after use, also after a crash."""

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

    The process locks the folder during its lifetime. A new root deletes unlocked folders of crashed processes.
    """

    def __init__(self) -> None:
        remove_abandoned()
        self.path = Path(tempfile.gettempdir()) / (PREFIX + secrets.token_hex(8))
        lock = self.path.with_suffix(".lock")
        self._lock = FileLock(lock, mode=0o600)
        self._lock.acquire()  # lock first, so that no other process deletes the folder
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()


def remove_abandoned() -> None:
    """Delete folders of crashed processes of this user in the system's temporary folder."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        folder = path.with_suffix("")
        if path.is_symlink() or folder.is_symlink():
            continue
        try:
            with FileLock(path, blocking=False):
                shutil.rmtree(folder, ignore_errors=True)
                path.unlink()
        except (Timeout, OSError):  # in use, or already deleted
            continue


class SharedFolder:
    """A folder used by several threads. It is deleted after `remove`, when the last user is done."""

    def __init__(self, path: Path):
        self.path = path
        self._num_users = 0
        self._is_removed = False
        self._changed = threading.Condition()

    @contextmanager
    def use(self) -> Iterator[Path]:
        """Keep the folder while the block runs.

        Raises:
            ValueError: If the folder was removed.
        """
        with self._changed:
            if self._is_removed:
                raise ValueError("This scene no longer exists. Reload the page.")
            self._num_users += 1
        try:
            yield self.path
        finally:
            with self._changed:
                self._num_users -= 1
                self._clear()

    def remove(self) -> None:
        """Delete the folder, now or when its users are done. Does not wait."""
        with self._changed:
            self._is_removed = True
            self._clear()

    def wait_removed(self, seconds: float) -> None:
        """Wait until the users of a removed folder are done, for at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._num_users, seconds)

    def _clear(self) -> None:
        if self._is_removed and not self._num_users:
            shutil.rmtree(self.path, ignore_errors=True)
            self._changed.notify_all()
