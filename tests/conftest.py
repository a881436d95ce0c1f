"""Shared by all tests."""

from pathlib import Path

import pytest
import torch
from small_models import TINY

from procedural_scenes.__main__ import main as main_of_the_world
from streamvggt import VGGT
from streamvggt.cli import main
from streamvggt.datasets._registry import training_sets


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none of them is the last of several processes."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Indices of data sets are cached for the user; tests keep theirs to themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMVGGT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    """Folder of the weights of a tiny bidirectional network."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    VGGT(**TINY).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """Every data set of the published mixture, as the procedural world."""
    folder = tmp_path_factory.mktemp("data")
    words = ["data", "make-fixtures", folder, *training_sets(), "--frames", "12", "--size", "60", "80"]
    assert main([str(word) for word in words]) == 0
    return folder


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """Clips of the procedural world, a shard of each kind."""
    folder = tmp_path_factory.mktemp("rendered")
    for name, scene_type in (("rooms", "rooms"), ("video", "video"), ("world", "all")):
        words = ["render", folder / name, "--scene-type", scene_type, "--clips", "1", "--frames", "2", "--size", "56"]
        main_of_the_world([str(word) for word in words])
    return folder
