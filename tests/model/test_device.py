"""Where and how a network computes."""

import os

import numpy as np
import pytest
import torch

from streamvggt.model.device import MIN_BFLOAT16_PARAMETERS, available_cpus, resolve_dtype, to_channels_last_layout
from streamvggt.model.fingerprint import count_parameters
from streamvggt.model.weights import load_model
from streamvggt.transfer import current, unit_range, uploaded, widest_float


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
    assert available_cpus(tmp_path) == cores


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 5, 2, 2), (1, 3, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_keep_their_entries_however_they_lie(shape, dtype):
    weight = torch.randn(shape)
    laid = to_channels_last_layout(weight, torch.device("cpu"), dtype, copy=True)
    assert torch.equal(laid, weight.to(dtype)) and laid.dtype == dtype
    assert laid.data_ptr() != weight.data_ptr()
    assert laid.stride() == {
        (3, 5): (1, 3) if dtype == torch.float32 else (5, 1),
        (3, 5, 2, 2): (20, 1, 10, 5),
    }.get(shape, weight.stride())


def test_the_network_s_own_card_is_the_current_one():
    """Events, recordings and Triton kernels go to the current device, which PyTorch leaves at cuda:0."""
    context = current(torch.device("cuda:1"))
    assert isinstance(context, torch.cuda.device) and context.idx == 1
    with current(torch.device("cpu")):  # nothing to do
        pass


def test_uploads_to_cuda_go_through_pinned_memory(monkeypatch):
    """Else the host waits: `non_blocking` has no effect on pageable memory."""
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pin") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **how: calls.append((str(device), how)) or self)
    uploaded(torch.zeros(1), torch.device("cuda:1"))
    assert calls == ["pin", ("cuda:1", {"non_blocking": True})]
    calls.clear()
    uploaded(torch.zeros(1), torch.device("cpu"))
    assert "pin" not in calls


def test_mps_has_no_float64():
    assert [widest_float(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [
        torch.float64,
        torch.float64,
        torch.float32,
    ]


def test_uploads_to_mps_block(monkeypatch):
    """A non-blocking copy reads the source after it was freed, and nobody holds a stack of images."""
    calls = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **how: calls.append((str(device), how)) or self)
    uploaded(torch.zeros(1), torch.device("mps"))
    assert calls == [("mps", {"non_blocking": False})]


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")],
        ),
    ],
)
def test_levels_are_those_of_a_division_on_the_host(device):
    levels = torch.arange(256, dtype=torch.uint8)
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(unit_range(levels.to(device)).cpu().numpy(), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_convolutions_lie_channels_last_on_cuda():
    weight = torch.randn(3, 5, 2, 2)
    laid = to_channels_last_layout(weight, torch.device("cuda"), torch.bfloat16, copy=True)
    assert laid.stride() == (20, 1, 10, 5)
    assert torch.equal(laid.cpu(), weight.to(torch.bfloat16))


@pytest.mark.parametrize("avx512, amx", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("num_parameters", [MIN_BFLOAT16_PARAMETERS - 1, MIN_BFLOAT16_PARAMETERS])
def test_auto_takes_bfloat16_on_cpus_that_multiply_in_it_for_large_networks(monkeypatch, avx512, amx, num_parameters):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    cpu = torch.device("cpu")
    is_large = num_parameters == MIN_BFLOAT16_PARAMETERS
    expected = torch.bfloat16 if (avx512 or amx) and is_large else torch.float32
    assert resolve_dtype("auto", cpu, lambda: num_parameters) == expected
    assert resolve_dtype("auto", cpu) == resolve_dtype("float32", cpu, lambda: 10**12) == torch.float32


def test_parameters_are_counted_without_loading_them(tmp_path):
    model = load_model("random:small")
    model.save_pretrained(tmp_path)
    assert count_parameters("random:small") == count_parameters(tmp_path) == sum(p.numel() for p in model.parameters())
