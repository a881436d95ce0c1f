"""Roofline lower bound of the time per frame: FLOPs and bytes at the rates of the machine.

A step reads every weight and every cached key and value once. Its time is at least the longer of the FLOPs at the rate
of a large matrix product in the same number format, and the bytes at the rate of a large copy.
"""

from dataclasses import dataclass

import torch
from components import attention_flops, bytes_per_second, flops_per_second
from torch.utils.flop_counter import FlopCounterMode

from streamvggt import VGGT
from streamvggt.model.memory import KVCacheMemory


@dataclass(frozen=True)
class Rates:
    """Measured FLOPs and bytes per second."""

    flops: float
    bytes: float

    @staticmethod
    def measured(device: torch.device, dtype: torch.dtype) -> "Rates":
        return Rates(flops_per_second(dtype, device), bytes_per_second(device))


@dataclass(frozen=True)
class Roofline:
    """FLOPs and bytes of a frame without memory, and of each cached token."""

    rates: Rates
    frame_flops: int
    frame_bytes: int
    token_flops: int
    token_bytes: int

    @staticmethod
    def of(model: VGGT, frame: torch.Tensor, rates: Rates) -> "Roofline":
        """
        Args:
            frame: (1, 1, 3, H, W)
        """
        # PyTorch's counter does not cover its own attention for CPUs.
        on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
            model(frame)
        height, width = frame.shape[-2:]
        tokens = model.aggregator.num_special_tokens + height * width // model.patch_size**2
        channels = model.config.embed_dim
        return Roofline(
            rates,
            counter.get_total_flops(),
            sum(parameter.nbytes for parameter in model.parameters()),
            4 * tokens * channels,
            2 * channels * next(model.parameters()).element_size(),
        )

    def milliseconds(self, memory: KVCacheMemory) -> float:
        """Return the lower bound for the next frame of a stream with this memory."""
        past = sum(memory.num_tokens)
        flops = self.frame_flops + past * self.token_flops
        needed = self.frame_bytes + past * self.token_bytes
        return 1000 * max(flops / self.rates.flops, needed / self.rates.bytes)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
