"""The example of docs/data.md is a data set: it writes, reads and prepares."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from procedural_scenes.fixture_clips import world_clips
from streamvggt.data.encode import millimeters, world_from_cam, write_image, write_png
from streamvggt.datasets import get_module, list_modules

DOCS = Path(__file__).parents[2] / "docs/data.md"


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(\"\"\"Rooms.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) < 70, "about 60 lines"
    (tmp_path / "rooms_of_the_docs.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("rooms_of_the_docs")


def test_the_example_of_the_docs_reads_what_it_writes_and_prepares(rooms, tmp_path):
    (clip,) = world_clips(1, 3, 48, 64)
    (written,) = rooms.write(tmp_path, [clip])
    raw = tmp_path / "raw/kitchen"
    for number, view in enumerate(clip):
        write_image(raw / f"color/{number:05d}.jpg", view)
        write_png(raw / f"depth/{number:05d}.png", millimeters(view))
    np.savetxt(raw / "camera.txt", [clip[0].intrinsics[i].item() for i in ((0, 0), (1, 1), (0, 2), (1, 2))])
    np.savetxt(raw / "poses.txt", [np.linalg.inv(world_from_cam(view)).ravel() for view in clip])
    (scene,) = rooms.raw_scenes(tmp_path / "raw")
    (tmp_path / "rooms/kitchen").mkdir()
    rooms.prepare(tmp_path / "raw", scene, tmp_path / "rooms/kitchen")
    source = rooms.Rooms(tmp_path / rooms.FOLDER)
    assert source.scenes == ["kitchen", written.scene]
    for scene in source.scenes:
        for frame, truth in zip(source.frames(scene), clip, strict=True):
            view = source.read(scene, frame)
            torch.testing.assert_close(view.cam_from_world, truth.cam_from_world, rtol=0, atol=1e-4)
            assert (view.depth - truth.depth * truth.valid).abs().max() < 0.001


@pytest.mark.parametrize("name", list_modules())
def test_every_data_set_keeps_the_contract(name):
    """Contract of the package docstring: the file layout, and a writer of fixtures."""
    module = get_module(name)
    assert "ROOT/" in module.__doc__ and module.FOLDER.partition("/")[0] in module.__doc__
    assert callable(module.write)
    assert hasattr(module, "prepare") == hasattr(module, "raw_scenes") == ("\nRAW" in module.__doc__)
