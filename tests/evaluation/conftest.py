"""A small network and the procedural world as the test sets with true depth."""

from pathlib import Path

import pytest
import torch
from networks import TINY

from streamvggt import StreamVGGT
from streamvggt.data.synthetic.fixture_clips import world_clips
from streamvggt.datasets import find

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    StreamVGGT(**TINY).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def depth_sets(tmp_path_factory) -> Path:
    """Two scenes of three frames in each layout."""
    root = tmp_path_factory.mktemp("eval")
    for name in ("sintel", "bonn", "kitti", "nyu", "scannetv2"):
        layout = find(name)
        layout.write(root, world_clips(2, 3, 42, 56, outdoors=getattr(layout, "OUTDOORS", False)))
    return root
