"""Indices are kept until the data change."""

import numpy as np
import pytest

from streamvggt.data import file_index
from streamvggt.data.file_index import FileIndex, cached


@pytest.fixture
def counted(tmp_path):
    """A maker of an index that counts how often it was run, and its root."""
    root = tmp_path / "root"
    for scene in ("b", "a"):
        (root / scene).mkdir(parents=True)
        (root / scene / "0.jpg").touch()
    np.savez(root / "list.npz", scenes=np.array(["a", "b"]))
    runs = []

    def maker(listing: FileIndex) -> dict:
        runs.append(1)
        named = listing.npz(root / "list.npz", "scenes")["scenes"].tolist()
        return {scene: listing.files(root / scene, ".jpg") for scene in listing.folders(root) if scene in named}

    return root, runs, lambda: cached(maker, root)


def test_an_index_is_made_once(counted):
    _, runs, index = counted
    assert index() == index() == {"a": ["0"], "b": ["0"]}
    assert len(runs) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a/1.jpg").touch(),
        lambda root: (root / "a/0.jpg").unlink(),
        lambda root: (root / "c").mkdir(),
        lambda root: np.savez(root / "list.npz", scenes=np.array(["a"])),
    ],
    ids=["new frame", "lost frame", "new scene", "new list"],
)
def test_a_change_makes_it_anew(counted, change):
    root, runs, index = counted
    index()
    change(root)
    index()
    assert len(runs) == 2


@pytest.mark.parametrize("changed", ["data/file_index.py", "datasets/_trajectory_set.py"])
def test_a_change_of_shared_code_makes_it_anew(counted, monkeypatch, tmp_path, changed):
    _, runs, index = counted
    for number in range(2):
        package = tmp_path / f"package{number}"
        for name in ("data/file_index.py", "datasets/_trajectory_set.py", "stream/session.py"):
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(f"x = {number if name in (changed, 'stream/session.py') else 0}")
        monkeypatch.setattr(file_index, "PACKAGE", package)
        index()
        index()
    assert len(runs) == 2
    (package / "stream/session.py").write_text("x = 2")  # has no part in it
    file_index.get_code.cache_clear()
    index()
    assert len(runs) == 2


def test_a_damaged_or_unwritable_cache_costs_time_and_nothing_else(counted, monkeypatch, tmp_path):
    _, runs, index = counted
    monkeypatch.setenv("STREAMVGGT_CACHE", str(tmp_path / "cache"))
    first = index()
    for path in (tmp_path / "cache").iterdir():
        path.write_text('{"stamps": ', encoding="utf-8")
    assert index() == first and len(runs) == 2
    (tmp_path / "file").touch()
    monkeypatch.setenv("STREAMVGGT_CACHE", str(tmp_path / "file"))
    assert index() == first and len(runs) == 3


def test_hidden_entries_are_no_scenes_or_frames(counted):
    root, _, index = counted
    (root / ".part").mkdir()
    (root / "a/.0.part.jpg").touch()
    assert index() == {"a": ["0"], "b": ["0"]}


def test_a_scene_without_its_folder_has_no_frames_until_it_is_there(counted):
    root, _, _ = counted
    calls = []

    def maker(listing: FileIndex) -> dict:
        calls.append(1)
        return {"c": listing.files(root / "c/rgb", ".jpg")}

    assert cached(maker, root) == {"c": []}
    (root / "c/rgb").mkdir(parents=True)
    (root / "c/rgb/0.jpg").touch()
    assert cached(maker, root) == {"c": ["0"]} and len(calls) == 2
