"""Where and how a network computes."""

import os

import pytest
import torch

from streamvggt.model.device import laid_out, usable_cores


@pytest.mark.parametrize(
    "files, cores",
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
    ids=str,
)
def test_a_container_s_share_of_the_cores(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 5, 2, 2), (1, 3, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_keep_their_entries_however_they_lie(shape, dtype):
    weight = torch.randn(shape)
    laid = laid_out(weight, torch.device("cpu"), dtype, copy=True)
    assert torch.equal(laid, weight.to(dtype)) and laid.dtype == dtype
    assert laid.data_ptr() != weight.data_ptr()
    assert laid.stride() == {
        (3, 5): (1, 3) if dtype == torch.float32 else (5, 1),
        (3, 5, 2, 2): (20, 1, 10, 5),
    }.get(shape, weight.stride())
