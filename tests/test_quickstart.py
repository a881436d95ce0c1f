"""scripts/quickstart.sh in a copy of the repository whose environment is there; and with a Python that is too old."""

import os
import shutil
import subprocess
import sys

import pytest
from launching import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix" or shutil.which("bash") is None, reason="the script needs bash")


@pytest.fixture
def copy(tmp_path):
    """The files that the script reads, and an environment that runs the package of this checkout."""
    folder = tmp_path / "a copy"
    for name in ("scripts/quickstart.sh", "scripts/setup_env.sh", "requirements.txt", "pyproject.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "assets").mkdir()
    shutil.copy(ROOT / "assets/clip.mp4", folder / "assets")
    (folder / ".venv/bin").mkdir(parents=True)
    program = folder / ".venv/bin/streamvggt"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streamvggt "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    installed = 'echo "$(cat requirements.txt pyproject.toml | cksum) $("$1" --version)" > .venv/installed'
    subprocess.run(["bash", "-c", installed, "bash", sys.executable], cwd=folder, check=True)
    return folder


def quickstart(folder, *words, cwd=None, python=sys.executable):
    environment = {**os.environ, "PYTHON": str(python), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = ["bash", str(folder / "scripts/quickstart.sh"), *words]
    return subprocess.run(command, cwd=cwd or folder, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_the_clip_and_then_a_video_of_another_folder_are_reconstructed(copy, tmp_path):
    done = quickstart(copy)
    assert done.returncode == 0, done.stderr
    assert "48 frames" in done.stdout and "results/quickstart/scene.glb" in done.stdout
    shutil.copy(ROOT / "assets/clip.mp4", tmp_path / "mine.mp4")
    done = quickstart(copy, "mine.mp4", "--max-frames", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 frames" in done.stdout and "results/quickstart-2/scene.glb" in done.stdout
    for name in ("quickstart", "quickstart-2"):
        assert (copy / "results" / name / "scene.glb").stat().st_size > 10_000


def test_an_old_python_is_an_error_that_names_the_fix(copy, tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.18" && exit 0\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    done = quickstart(copy, python=old)
    assert done.returncode == 1
    assert "expected Python 3.11 or newer, got Python 3.9.18" in done.stderr and "PYTHON=" in done.stderr
