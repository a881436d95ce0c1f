"""One run per output folder, whatever kind of run it is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import run_script

from streamvggt.folder_lock import FolderLock

SRC = Path(__file__).parents[1] / "src"
HOLDER = """
import os, sys, time
from pathlib import Path
from streamvggt.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
if os.fork() == 0:  # a worker that outlives it
    time.sleep(60)
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path):
    folder = tmp_path / "a" / "b"
    with FolderLock(folder):
        with pytest.raises(BlockingIOError, match=f"held by process {os.getpid()} on .* since"):
            FolderLock(folder)
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())
    with FolderLock(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


@pytest.mark.parametrize("away", ["moved", "replaced"])
def test_a_folder_that_goes_away_is_noticed(tmp_path, away):
    with FolderLock(tmp_path / "out") as lock:
        lock.check()
        (tmp_path / "out").rename(tmp_path / "elsewhere")
        if away == "replaced":
            (tmp_path / "out").mkdir()
        with pytest.raises(FileNotFoundError, match="it was deleted or moved"):
            lock.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_killed_holder_holds_nothing_though_its_workers_live_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "out"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"held by process {process.pid} on"):
            FolderLock(tmp_path / "out")
        process.kill()
        process.wait()
        FolderLock(tmp_path / "out").release()
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("script", ["train.py", "finetune.py"])
def test_a_second_training_into_one_folder_is_rejected(tmp_path, script):
    with FolderLock(tmp_path / "out"):
        done = run_script(script, f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 1 and f"error: {tmp_path / 'out'}: expected a folder that no other run" in done.stderr
    assert f"held by process {os.getpid()} on" in done.stderr and "Traceback" not in done.stderr
