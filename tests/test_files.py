"""Files are whole, on the disk, and sealed: any damage to a sealed one is noticed."""

import os
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from streamvggt import files
from streamvggt.files import atomic_directory, atomic_write, atomic_write_bytes, check_seal

WRITERS = {
    "state.pt": lambda path: torch.save({"numbers": torch.arange(100)}, path),
    "frame.npz": lambda path: np.savez(path, numbers=np.arange(100)),
    "array.npy": lambda path: np.save(path, np.arange(100)),
    "text.txt": lambda path: path.write_text("1 2 3\n", encoding="utf-8"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_flipped_bit_of_a_sealed_file_is_noticed(tmp_path, name):
    path = tmp_path / name
    with atomic_write(path, sealed=True) as unfinished:
        WRITERS[name](unfinished)
    check_seal(path)
    whole = path.read_bytes()
    places = {0, len(whole) - 1, *range(0, len(whole), 97), *range(len(whole) - 100, len(whole))}
    for place in places & set(range(len(whole))):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            check_seal(path)
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is damaged"):
            check_seal(path)


def test_sealed_files_are_read_as_ever(tmp_path):
    for name in ("state.pt", "frame.npz", "array.npy"):
        with atomic_write(tmp_path / name, sealed=True) as unfinished:
            WRITERS[name](unfinished)
    for mmap in (False, True):
        state = torch.load(tmp_path / "state.pt", weights_only=True, mmap=mmap)
        assert torch.equal(state["numbers"], torch.arange(100))
    assert np.array_equal(np.load(tmp_path / "frame.npz")["numbers"], np.arange(100))
    assert np.array_equal(np.load(tmp_path / "array.npy", mmap_mode="r"), np.arange(100))


def test_files_have_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "model.safetensors") as unfinished:
        save_file({"weight": torch.ones(1)}, unfinished)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "model.safetensors")]
    assert modes[0] == modes[1]


def test_a_folder_that_went_away_is_not_made_again(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "gone" / "file", make_folder=False):
        pass
    assert not (tmp_path / "gone").exists()


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The file first, then its name, then the folder that holds the name."""
    done = []
    monkeypatch.setattr(files, "sync", lambda path: done.append(("sync", path.name)))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(("name", b.name)), replace(a, b)))
    with atomic_write(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("1", encoding="utf-8")
    assert done == [("sync", ".a.part.txt"), ("name", "a.txt"), ("sync", tmp_path.name)]
    done.clear()
    atomic_write_bytes(tmp_path / "a.txt", b"2")
    assert done == [("sync", ".a.part.txt"), ("name", "a.txt"), ("sync", tmp_path.name)]
    done.clear()
    with atomic_directory(tmp_path / "b", marker="c") as unfinished:
        (unfinished / "c").touch()
    assert done == [("sync", ".b.part"), ("sync", "c"), ("name", "b"), ("sync", tmp_path.name)]
