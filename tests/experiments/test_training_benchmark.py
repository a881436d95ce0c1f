"""The benchmark of training runs from the configuration to the table."""

import pytest
import torch
from benchmark_runs import load, rows, run
from torch.utils.flop_counter import FlopCounterMode


def test_flops_are_those_of_pytorch(monkeypatch):
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Conv1d(4, 4, 3))

    def step():
        network(torch.rand(2, 4, 8)).sum().backward()

    with FlopCounterMode(display=False) as expected:
        step()
    with load("training", monkeypatch).FlopCounter() as counter:
        step()
    assert counter.flops == expected.get_total_flops() > 0


@pytest.mark.slow
def test_the_table_of_a_small_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(load("training", monkeypatch), "matmul_flops", lambda device, precision: 1e11)
    recipe = ["finetune_tiny", "data=synthetic", "size=28", "num_frames=[2,2]", "max_images_per_process=2"]
    recipe += ["xfeat_weights=null", "trainer.precision=no", "trainer.num_workers=0"]
    table = run("training", monkeypatch, *recipe, "--steps", 1, "--out", tmp_path / "new" / "table.md")
    found = rows(table)
    step, images = float(found["median of 1 steps"][0].split()[0]), float(found["images per second"][0])
    assert images == pytest.approx(2 / step, rel=0.02, abs=0.1)
    assert 0.1 < float(found["arithmetic per step, forward and backward"][0].split()[0]) < 10
