"""Host-to-device copies and the current CUDA device."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def uploaded(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without blocking the host.

    CUDA copies go through pinned memory, because copies from pageable memory block.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def current(device: torch.device) -> AbstractContextManager:
    """Return a context in which a CUDA device is the current one.

    CUDA graphs, events and Triton kernels use the current device. PyTorch operators use the device of their inputs.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
