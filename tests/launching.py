"""The training commands of the README, with settings small enough for a test."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMALL = [
    "size=56",
    "num_frames=[2,2]",
    "max_images_per_process=2",
    "trainer.optim.steps=2",
    "trainer.optim.warmup_steps=1",
    "trainer.precision=no",
    "trainer.num_workers=0",
    "trainer.num_validation_batches=1",
    "trainer.log_every=1",
]

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["streamvggt.cli.training", "streamvggt.training.trainer", "streamvggt.cli.reconstruct"]
)
"""Starts processes that have the packages imported already, which takes longer than most runs of the tests."""


def launch(*words: str) -> subprocess.CompletedProcess:
    """`accelerate launch WORDS…` in src/, as a user starts it."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, env=environment, timeout=400)


def start(function: Callable, *arguments, folder: Path) -> multiprocessing.process.BaseProcess:
    """Call a function in a process with the packages imported; what it prints goes to folder/stdout and stderr."""
    process = PROCESSES.Process(target=_call, args=(function, arguments, folder, dict(os.environ)))
    process.start()
    return process


def finish(process: multiprocessing.process.BaseProcess, folder: Path) -> subprocess.CompletedProcess:
    """Wait for a process from `start`. Its exit status, negative for a signal, and what it printed."""
    process.join(400)
    assert process.exitcode is not None, "the process did not end"
    stdout, stderr = ((folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess([], process.exitcode, stdout, stderr)


def run_script(*words: str) -> subprocess.CompletedProcess:
    """`python WORDS…` in src/, in a process with the packages imported."""
    with tempfile.TemporaryDirectory() as folder:
        return finish(start(_run_script, words, folder=Path(folder)), Path(folder))


def run_command(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    """`streamvggt WORDS…` in `cwd`, in a process with the packages imported."""
    with tempfile.TemporaryDirectory() as folder:
        return finish(start(_run_command, words, cwd, folder=Path(folder)), Path(folder))


def _call(function: Callable, arguments: tuple, folder: Path, environment: dict[str, str]) -> None:
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        with open(folder / name, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def _run_script(words: tuple[str, ...]) -> None:
    os.chdir(ROOT / "src")
    sys.path.insert(0, str(ROOT / "src"))
    sys.argv = list(words)
    runpy.run_path(str(ROOT / "src" / words[0]), run_name="__main__")


def _run_command(words: tuple[str, ...], cwd: Path) -> None:
    from streamvggt.cli import main

    os.chdir(cwd)
    raise SystemExit(main([str(word) for word in words]))
