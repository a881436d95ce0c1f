"""A tiny saved network, tiny photos, and the command line called with them."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import SHALLOW, tiny

from streamvggt.cli import main
from streamvggt.export import colmap
from streamvggt.stream.session import StreamSession


def write_photos(folder: Path, count: int) -> Path:
    """Photos of 56×42 pixels, each its own noise."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (42, 56, 3), np.uint8)).save(folder / f"photo_{number}.png")
    return folder


@pytest.fixture(autouse=True)
def no_threads_left():
    """However a command ends, its threads end."""
    yield
    started = ("read", "prepare", "encode", "finish")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(started)]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "network"
    tiny(dtype=torch.float32, **SHALLOW).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("few") / "photos", 6)


@pytest.fixture(scope="session")
def many_photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("many") / "photos", 150)


@pytest.fixture(scope="session")
def options(weights) -> list[str]:
    """Of every run here, unless a later one says otherwise."""
    return ["--weights", str(weights), "--device", "cpu", "--formats", "none", "--policy", "window:1,2"]


@pytest.fixture
def command(capsys):
    """Calls `streamvggt …` in this process; exit status and all that it said."""

    def call(*words) -> tuple[int, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as exit:  # argparse's way to leave
            status = exit.code
        return status, "".join(capsys.readouterr())

    return call


@pytest.fixture
def reconstruct(command, options, tmp_path):
    """Calls `streamvggt reconstruct SOURCE --out tmp_path/out …`."""
    return lambda source, *more: command("reconstruct", source, "--out", tmp_path / "out", *options, *more)


@pytest.fixture
def pushed(monkeypatch) -> list[str]:
    """Names of the frames that the network is asked about, as they come."""
    names, push = [], StreamSession.push
    monkeypatch.setattr(StreamSession, "push", lambda self, frame: names.append(frame.name) or push(self, frame))
    return names


@pytest.fixture
def points_seen_once(monkeypatch):
    """COLMAP exports keep points that one photo sees: the untrained network puts none where two see it."""
    monkeypatch.setattr(colmap, "MIN_OBSERVATIONS", 1)
