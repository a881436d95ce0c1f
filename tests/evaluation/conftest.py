"""A small network and the procedural world as the test sets with ground-truth depth."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_models import SHALLOW, TINY

from procedural_scenes.fixture_clips import world_clips
from streamvggt import StreamVGGT
from streamvggt.datasets import get_module
from streamvggt.evaluation import protocol
from streamvggt.evaluation.processes import ProcessGroup

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    StreamVGGT(**{**TINY, **SHALLOW}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def depth_sets(tmp_path_factory) -> Path:
    """Two scenes of three frames in each layout."""
    root = tmp_path_factory.mktemp("eval")
    for name in ("sintel", "bonn", "kitti", "nyu", "scannetv2"):
        layout = get_module(name)
        layout.write(root, world_clips(2, 3, 42, 56, outdoors=getattr(layout, "OUTDOORS", False)))
    return root


@pytest.fixture
def process_of_two(monkeypatch):
    """A context in which a program is one of two processes that share its work; the other one is not there."""

    @contextmanager
    def enter(rank: int):
        class OneOfTwo(ProcessGroup):
            def __init__(self):
                super().__init__()
                self.count, self.rank = 2, rank

            def barrier(self):
                pass

            def gather(self, entries):
                return entries

        with monkeypatch.context() as patch:
            patch.setattr(protocol, "ProcessGroup", OneOfTwo)
            yield

    return enter
