"""Shared by the tests of training."""

import pytest
import torch
from accelerate.state import AcceleratorState
from planes import Planes
from small_models import TINY

from streamvggt import VGGT, StreamVGGT


@pytest.fixture(autouse=True)
def new_accelerator():
    """accelerate keeps the settings of a process for good; every test is to have its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def planes():
    return Planes


@pytest.fixture
def fresh():
    """A tiny network with the weights it would start training from."""

    def make(causal: bool = True, **options) -> VGGT:
        torch.manual_seed(0)
        return (StreamVGGT if causal else VGGT)(**{**TINY, **options})

    return make
