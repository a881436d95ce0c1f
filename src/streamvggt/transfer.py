"""Copies between host and device, the current CUDA device, and the number formats of a device."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def uploaded(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device. Copies to CUDA do not block the host.

    CUDA copies go through pinned memory, because copies from pageable memory block. Copies to MPS block, because a
    non-blocking copy reads the source after PyTorch may have freed it (pytorch/pytorch#189690).
    """
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=device.type != "mps")


def unit_range(pixels: Tensor) -> Tensor:
    """Convert uint8 to float32 in [0, 1], with equal results on all devices. Any shape.

    The divisor is a tensor, because PyTorch on CUDA multiplies by the rounded reciprocal of a Python number.
    """
    return pixels.float() / torch.full((), 255.0, device=pixels.device)


def start_download(tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Start to copy tensors of one device to the host, in one transfer that does not block the host.

    Args:
        tensors: Tensors of any shapes. CUDA tensors are converted to float32.

    Returns:
        A function that waits for the transfer and returns the copies. Any thread may call the function. Tensors of the
        host are not copied.
    """
    first = next(iter(tensors.values()))
    if not first.is_cuda:
        return lambda: {name: tensor.cpu() for name, tensor in tensors.items()}
    on_device = packed(tensors)
    on_host = torch.empty_like(on_device, device="cpu", pin_memory=True).copy_(on_device, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(first.device))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}

    def wait() -> dict[str, Tensor]:
        arrived.synchronize()
        return unpacked(on_host, shapes)

    return wait


def packed(tensors: Mapping[str, Tensor]) -> Tensor:
    """Join the elements of tensors. float32 (total number of elements,)"""
    return torch.cat([tensor.detach().float().flatten() for tensor in tensors.values()])


def unpacked(elements: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return the tensors of `packed` as views."""
    parts = elements.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def current(device: torch.device) -> AbstractContextManager:
    """Return a context in which a CUDA device is the current one.

    CUDA graphs, events and Triton kernels use the current device. PyTorch operators use the device of their inputs.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
