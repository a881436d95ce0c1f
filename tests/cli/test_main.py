"""`streamvggt`: the parts that all commands share, and the commands that start other programs."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from launching import finish, run_command, start

import streamvggt
from streamvggt.cli import COMMANDS, main


def test_help_names_every_command_and_the_version_is_that_of_the_package(command):
    status, text = command("--help")
    assert status == 0 and all(f"\n    {name} " in text for name in COMMANDS)
    assert command("--version") == (0, f"streamvggt {streamvggt.__version__}\n")


@pytest.mark.parametrize("name", [name for name, known in COMMANDS.items() if not known.parses_itself])
def test_the_summary_is_the_first_line_of_the_module(name):
    path = Path(find_spec(f"streamvggt.cli.{COMMANDS[name].module}").origin)
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring.splitlines()[0] == COMMANDS[name].summary


def test_quiet_prints_errors_only_wherever_it_stands(command, options, photos, tmp_path):
    words = ["reconstruct", photos, "--out", tmp_path / "out", *options, "--max-frames", "2"]
    process = [sys.executable, "-m", "streamvggt", *map(str, words), "-q"]  # tqdm reads its switch when it is imported
    done = subprocess.run(process, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    status, text = command("--quiet", *words)
    assert status == 1 and text.startswith("\nerror: ") and "already contains a result" in text


def test_verbose_adds_the_traceback(command, tmp_path):
    status, text = command("export", tmp_path, "-v")
    assert status == 1 and "Traceback" in text and "error: " in text
    status, text = command("export", tmp_path)
    assert status == 1 and "Traceback" not in text and "error: " in text


@pytest.mark.parametrize(
    "words, package, extra",
    [(["demo"], "gradio", "demo"), (["train"], "hydra", "train"), (["data", "check", "."], "h5py", "prepare")],
)
def test_a_command_without_its_packages_names_the_extra_to_install(words, package, extra, tmp_path):
    done = finish(start(run_without, package, words, folder=tmp_path), tmp_path)
    assert done.returncode == 1 and f'pip install "streamvggt[{extra}]"' in done.stderr


def run_without(package: str, words: list[str]) -> None:
    sys.modules[package] = None
    raise SystemExit(main(words))


def test_an_evaluation_gets_the_flags_behind_its_name(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    status, text = command("evaluate", "own", "--help")
    assert status == 0 and text.startswith("usage: streamvggt evaluate own") and "--max_frames" in text
    status, text = command("evaluate", "nothing")
    assert status == 2 and "invalid choice: 'nothing'" in text


def test_training_reads_the_bundled_configurations_in_any_folder(tmp_path, monkeypatch):
    words = ["finetune", "--config-name", "train_tiny", "trainer.optim.steps=7", "--cfg", "job", "--resolve"]
    monkeypatch.delenv("STREAMVGGT_ROOT", raising=False)
    done = run_command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "steps: 7" in done.stdout and "output_dir: ./results/train/tiny-streamvggt" in done.stdout


def test_completion_lists_commands_and_their_flags(tmp_path, monkeypatch):
    pytest.importorskip("argcomplete")
    for line, found in (("streamvggt rec", "reconstruct"), ("streamvggt reconstruct --kv", "--kv-cache-dtype")):
        for name, value in {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}.items():
            monkeypatch.setenv(name, value)
        done = finish(start(complete, folder=tmp_path), tmp_path)
        assert found in done.stdout, done.stderr


def complete() -> None:
    """What the shell starts for a completion; it reads file 8."""
    os.dup2(1, 8)
    main()
