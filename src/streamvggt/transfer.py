"""From the host to a device, and which card is at work."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def uploaded(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to its device so that the host does not wait; on CUDA through pinned memory, which that needs."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def current(device: torch.device) -> AbstractContextManager:
    """Make a CUDA device the current one within the context, so that events, graphs and kernels are on its streams.

    PyTorch's own operations find their device by themselves; CUDA graphs, events and Triton kernels do not.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
