"""Threads by the size of the model, unless the user chose."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_models import tiny

from streamvggt.cli import main
from streamvggt.model import threads
from streamvggt.model.threads import MIN_THREADED_WIDTH, choose_threads, load_with_threads

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
    choose_threads(tiny())
    assert torch.get_num_threads() == 1
    choose_threads(SimpleNamespace(config=SimpleNamespace(embed_dim=MIN_THREADED_WIDTH)))
    assert torch.get_num_threads() == 4


def test_the_users_choice_wins(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    choose_threads(tiny())
    assert torch.get_num_threads() == 3


def test_commands_choose_after_loading(tmp_path):
    tiny().save_pretrained(tmp_path / "weights")
    load_with_threads(str(tmp_path / "weights"), causal=True)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(3)
    words = ["reconstruct", CLIP, "--max-frames", "1", "--device", "cpu", "--formats", "none", "--size", "28"]
    assert main([*words, "--weights", str(tmp_path / "weights"), "--out", str(tmp_path / "out")]) == 0
    assert torch.get_num_threads() == 1
