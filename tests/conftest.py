"""Shared by all tests."""

from pathlib import Path

import pytest
import torch
from small_models import TINY

from streamvggt import VGGT


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
