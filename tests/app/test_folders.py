"""Nothing is left of what was removed, nor of what was killed."""

import os
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from streamvggt.app.folders import SharedFolder, TemporaryRoot

HOLD = """
from streamvggt.app.folders import TemporaryRoot
root = TemporaryRoot()
(root.path / "uploads").mkdir()
print(root.path, flush=True)
input()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_start_removes_only_folders_of_killed_processes(place):
    environment = {**os.environ, "TMPDIR": str(place)}
    start = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    killed, living = start(), start()
    try:
        left, kept = (process.stdout.readline().strip() for process in (killed, living))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (place / "streamvggt-notes").mkdir()  # of somebody else
        assert os.path.exists(left)
        root = TemporaryRoot()
        assert not os.path.exists(left)
        assert os.path.exists(kept)
        assert root.path.exists()
        assert (place / "streamvggt-notes").exists()
        assert root.path.stat().st_mode & 0o777 == 0o700
        TemporaryRoot().remove()
        assert root.path.exists()
        root.remove()
        assert len(list(place.glob("streamvggt-*"))) == 3  # the notes, and the living one with its lock
    finally:
        living.kill()
        living.wait()


def test_a_removed_folder_is_deleted_after_its_last_user_and_not_created_again(tmp_path):
    folder = SharedFolder(tmp_path / "scene")
    folder.path.mkdir()
    with folder.use() as path:
        folder.remove()
        (path / "frame").write_bytes(b"x")
        waiting = threading.Thread(target=folder.wait_removed, args=(60,))
        waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()
    assert not folder.path.exists()
    with pytest.raises(ValueError, match="no longer exists"), folder.use():
        pass
