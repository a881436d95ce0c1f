"""Text is UTF-8 whatever the locale is, and names that it cannot show stop nothing."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
TEXT = {"read_text", "write_text"}
OPEN = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile"}
NOT_FILES = {"Image", "av", "os", "webbrowser", "pool", "self", "SessionPool", "trimesh", "tarfile", "zipfile", "rawpy"}


def unnamed_encodings(text: str) -> list[int]:
    """Lines that open a file as text without saying in which encoding."""
    return [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and lacks_encoding(node)]


def lacks_encoding(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if any(keyword.arg in ("encoding", None) for keyword in call.keywords):
        return False
    if name in TEXT:
        return len(call.args) < (1 if name == "read_text" else 2)
    if name not in OPEN:
        return False
    if {keyword.arg for keyword in call.keywords} - {"mode", "buffering", "errors", "newline", "delete", "suffix"}:
        return False  # of something else
    is_method = isinstance(function, ast.Attribute) and name == "open"
    if is_method and isinstance(function.value, ast.Name) and function.value.id in NOT_FILES:
        return False
    position = 0 if is_method or "Temporary" in name else 1
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[position : position + 1]
    if not modes:
        return "Temporary" not in name  # those are binary unless asked otherwise
    mode = getattr(modes[0], "value", "")
    return isinstance(mode, str) and set(mode) <= set("rwaxt+U") and bool(mode)


@pytest.mark.parametrize("folder", ["src", "scripts", "benchmarks"])
def test_every_text_file_has_its_encoding_named(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert not unnamed_encodings(path.read_text(encoding="utf-8")), path


def test_one_that_has_not_is_found():
    for line in (
        "open(a)",
        "open(a, 'w')",
        "a.open('a')",
        "a.read_text()",
        "a.write_text(b)",
        "os.fdopen(a, mode='r')",
    ):
        assert unnamed_encodings(line) == [1], line
    for line in ("open(a, 'rb')", "open(a, encoding='utf-8')", "Image.open(a)", "a.open('wb')"):
        assert unnamed_encodings(line) == [], line


def test_a_locale_without_the_names_letters_changes_nothing(tmp_path):
    """As on a system with a code page: names, messages of errors and the console."""
    photos = tmp_path / "照片"
    photos.mkdir()
    for name in ("été", "夏"):
        Image.fromarray(np.zeros((42, 56, 3), np.uint8)).save(photos / f"{name}.png")
    shutil.copy(__file__, photos / "schön.jpg")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    words = ["reconstruct", photos, "--out", tmp_path / "ört", "--device", "cpu", "--formats", "tum", "--size", "112"]
    done = subprocess.run(
        [sys.executable, "-m", "streamvggt", *words], env=environment, capture_output=True, encoding="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert "2 frames" in done.stdout and "not an image" in done.stderr + done.stdout
    record = json.loads((tmp_path / "ört" / "run.json").read_text(encoding="utf-8"))
    ((skipped, reason),) = record["frames"]["skipped"]
    assert os.fsencode(skipped) == "schön.jpg".encode() and reason == "not an image (its content is text)"
    inputs = json.loads((tmp_path / "ört" / "inputs.json").read_text(encoding="utf-8"))
    assert {name for name, *_ in inputs} == {"été.png", "夏.png", "schön.jpg"}
