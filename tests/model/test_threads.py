"""Threads by the size of the model, unless the user chose."""

from pathlib import Path

import pytest
import torch
from small_models import tiny

from streamvggt.cli import main
from streamvggt.model import threads
from streamvggt.model.threads import MIN_THREADED_WIDTH, set_threads
from streamvggt.model.weights import load_with_threads

CLIP = str(Path(__file__).parents[2] / "assets" / "clip.mp4")


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "available_cpus", lambda _: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_small_models_use_one_thread_and_large_models_all_cores():
    set_threads(MIN_THREADED_WIDTH - 1)
    assert torch.get_num_threads() == 1
    set_threads(MIN_THREADED_WIDTH)
    assert torch.get_num_threads() == 4


def test_commands_without_a_model_use_all_cores():
    set_threads()
    assert torch.get_num_threads() == 4


def test_the_users_choice_wins(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    set_threads(1)
    assert torch.get_num_threads() == 3


def test_commands_choose_after_loading(tmp_path):
    tiny().save_pretrained(tmp_path / "weights")
    load_with_threads(str(tmp_path / "weights"), causal=True)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(3)
    words = ["reconstruct", CLIP, "--max-frames", "1", "--device", "cpu", "--formats", "none", "--size", "28"]
    assert main([*words, "--weights", str(tmp_path / "weights"), "--out", str(tmp_path / "out")]) == 0
    assert torch.get_num_threads() == 1
