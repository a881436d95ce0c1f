"""Which device and number format a network runs in, and how its weights lie in memory there."""

import math
import os
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto": the best there is.

    Raises:
        ValueError: it is unknown, or this machine has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name} is unknown; choose cuda, mps or cpu") from error
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if device.type not in there:
        raise ValueError(f"--device {name} is not served; choose cuda, mps or cpu")
    if not there[device.type]():
        raise ValueError(f"--device {name}: PyTorch {torch.__version__} sees no such device here; try --device cpu")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format called `name`; "auto": half precision on CUDA; "half": wherever the device computes in it.

    Half precision is bfloat16 if it can be.
    """
    if name in DTYPES:
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name == "half" and device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


def exact_convolutions() -> None:
    """Have cuDNN compute float32 convolutions in float32, not in TF32, for this process, as products are by default.

    TF32 keeps 10 bits of the mantissa: results in float32 differ from a CPU's by about 1e-3.
    """
    torch.backends.cudnn.allow_tf32 = False


def to_channels_last_layout(weight: Tensor, device: torch.device, dtype: torch.dtype, *, copy: bool) -> Tensor:
    """A weight on its device, its entries in the order in which kernels read them fastest (benchmarks/step.md).

    Channels last for convolutions on CPU and CUDA, as the maps come, so that cuDNN does not lay the weights out for
    every frame (`benchmarks/gpu.py` measures both). On a CPU matrices by columns in float32, which a product with few
    tokens reads twice as fast. Elsewhere, where nothing was measured, as they come.

    Args:
        copy: the answer shares no memory with `weight`, even where nothing changes.
    """
    if device.type in ("cpu", "cuda") and weight.ndim == 4:
        return torch.empty(weight.shape, dtype=dtype, device=device, memory_format=torch.channels_last).copy_(weight)
    if device.type == "cpu" and weight.ndim == 2 and dtype == torch.float32:
        return torch.empty(weight.shape[::-1], dtype=dtype).t().copy_(weight)
    return weight.to(device, dtype, copy=copy)


def limit_threads(cgroup: Path = Path("/sys/fs/cgroup")) -> None:
    """Have PyTorch use no more threads than a container may: it counts the machine's cores, and would wait in line.

    Args:
        cgroup: where Linux says what this process may use.
    """
    usable = available_cpus(cgroup)
    if usable < torch.get_num_threads():
        torch.set_num_threads(usable)


def available_cpus(cgroup: Path) -> int:
    """Cores that this process may use, by its affinity and the quota of its container (cgroup version 2 or 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{what}_us").read_text(encoding="utf-8") for what in ("quota", "period")
            )
        if int(quota) > 0:
            cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return max(cores, 1)
