"""Preparation goes on where it stopped, leaves nothing half done, and one bad scene does not end it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from streamvggt.datasets import _prepare as runner


@pytest.fixture
def counting(monkeypatch):
    """A data set whose scenes are the text files of the download."""
    module = ModuleType("streamvggt.datasets.counting", "RAW/<scene>.txt")
    module.FOLDER, module.done, module.finished = "counting", [], 0
    module.raw_scenes = lambda raw: sorted(f"part/{path.stem}" for path in raw.glob("*.txt"))

    def prepare(raw: Path, scene: str, folder: Path) -> None:
        (folder / "begun").touch()
        text = (raw / f"{scene.removeprefix('part/')}.txt").read_text(encoding="utf-8")
        if text == "bad":
            raise ValueError("this one is bad")
        if text == "skip":
            raise runner.SkipScene("not wanted")
        module.done.append(scene)

    def finish(raw: Path, out: Path) -> None:
        module.finished += 1

    module.prepare, module.finish = prepare, finish
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(runner, "get_module", lambda name: module)
    return module


def raw_folder(folder: Path, **scenes: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in scenes.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_what_is_there_is_not_done_again(tmp_path, counting):
    raw = raw_folder(tmp_path / "raw", a="", b="bad", c="skip")
    first = runner.prepare("counting", raw, tmp_path)
    assert first.prepared == ["part/a"] and first.skipped == {"part/c": "not wanted"}
    assert first.failed == {"part/b": "ValueError: this one is bad"}
    assert [path.name for path in (tmp_path / "counting/part").iterdir()] == ["a"], "nothing half done is left"
    assert counting.finished == 1, "one bad scene does not keep the others from being used"
    raw_folder(raw, b="", d="")
    second = runner.prepare("counting", raw, tmp_path)
    assert second.prepared == ["part/b", "part/d"] and second.already_prepared == ["part/a"]
    assert counting.done == ["part/a", "part/b", "part/d"] and counting.finished == 2


def test_what_cannot_be_prepared_is_reported(tmp_path, counting):
    with pytest.raises(FileNotFoundError, match=r"raw is not a folder"):
        runner.prepare("counting", tmp_path / "raw", tmp_path)
    raw = raw_folder(tmp_path / "raw")
    with pytest.raises(ValueError, match=r"nothing to prepare. Expected:\nRAW/<scene>.txt"):
        runner.prepare("counting", raw, tmp_path)
    raw_folder(raw, a="")
    with pytest.raises(ValueError, match="none of 1 scenes matches 'x'; the first is 'part/a'"):
        runner.prepare("counting", raw, tmp_path, only="x")
