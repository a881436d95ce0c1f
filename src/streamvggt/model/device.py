"""Device, number format and memory layout of network weights."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from streamvggt.choices import DtypeName
from streamvggt.layers.attention import multiplies_bfloat16

CGROUP = Path("/sys/fs/cgroup")
DTYPES = {name: getattr(torch, name) for name in get_args(DtypeName)}


def resolve_device(name: str) -> torch.device:
    """Resolve a device name.

    Args:
        name: PyTorch device name, or "auto": CUDA, otherwise MPS, otherwise CPU.

    Raises:
        ValueError: If the device is unknown or not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name} is unknown; choose cuda, mps or cpu") from error
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if device.type not in there:
        raise ValueError(f"--device {name} is not supported; choose cuda, mps or cpu")
    if not there[device.type]():
        raise ValueError(
            f"--device {name}: not available to PyTorch {torch.__version__} on this machine. Use --device cpu."
        )
    return device


MIN_BFLOAT16_PARAMETERS = 50_000_000
"""Parameters from which "auto" selects bfloat16 on CPUs that multiply in bfloat16.

On a CPU with AVX512-BF16, a frame takes 1.02 of the float32 time with 11 M parameters (benchmarks/step-tiny-cpu.md),
0.79 with 13 M (benchmarks/step-small-cpu.md) and 0.66 with 69 M (benchmarks/versions.md). The error of the depth is
about 3 % of its standard deviation (benchmarks/precision.md), which 0.79 does not justify.
"""


def resolve_dtype(name: str, device: torch.device, num_parameters: Callable[[], int] = lambda: 0) -> torch.dtype:
    """Resolve the name of a number format.

    Args:
        name: A key of `DTYPES`. "auto": half precision on CUDA, bfloat16 for networks of at least
            `MIN_BFLOAT16_PARAMETERS` on CPUs that multiply in bfloat16, otherwise float32. "half": half precision on
            CUDA and on CPUs with bfloat16 kernels, otherwise float32.
        device: Device to run on.
        num_parameters: Function that returns the number of parameters of the network. Called only if needed.

    Returns:
        The number format. Half precision is bfloat16, or float16 on CUDA devices without bfloat16.
    """
    if name in DTYPES:
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name == "half" and device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    if name == "auto" and device.type == "cpu" and multiplies_bfloat16():
        return torch.bfloat16 if num_parameters() >= MIN_BFLOAT16_PARAMETERS else torch.float32
    return torch.float32


def exact_convolutions() -> None:
    """Disable TF32 for cuDNN convolutions in this process. PyTorch disables TF32 for matrix products by default.

    TF32 has a 10-bit mantissa, so results differ from CPU results by about 1e-3.
    """
    torch.backends.cudnn.allow_tf32 = False


def to_channels_last_layout(weight: Tensor, device: torch.device, dtype: torch.dtype, *, copy: bool) -> Tensor:
    """Copy a weight to a device in the memory layout that is fastest there (benchmarks/step.md).

    - Convolutions on CPU and CUDA: channels last, like the feature maps, so that cuDNN does not convert the weights
      for every frame (measured by `benchmarks/gpu.py`).
    - float32 matrices on CPU: column-major, which is twice as fast for products with few tokens.
    - Other weights and devices: unchanged.

    Args:
        weight: Weight of any shape.
        device: Target device.
        dtype: Target number format.
        copy: Never share memory with `weight`.
    """
    if device.type in ("cpu", "cuda") and weight.ndim == 4:
        return torch.empty(weight.shape, dtype=dtype, device=device, memory_format=torch.channels_last).copy_(weight)
    if device.type == "cpu" and weight.ndim == 2 and dtype == torch.float32:
        return torch.empty(weight.shape[::-1], dtype=dtype).t().copy_(weight)
    return weight.to(device, dtype, copy=copy)


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Return the number of cores available to this process, from its affinity and the quota of cgroup v2 or v1."""
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
