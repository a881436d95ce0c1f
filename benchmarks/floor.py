"""The floor under a frame's time: what its arithmetic and its bytes would take at the rates this machine reaches.

A step needs so many FLOPs, and must read every weight, and every key and value it meets, once. It can be no faster than
the longer of the two takes at the rate of a large matrix product in the same number format and of a large copy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from streamvggt import VGGT
from streamvggt.model.memory import Memory


@dataclass(frozen=True)
class Rates:
    """What the machine reaches: FLOPs and bytes per second."""

    flops: float
    bytes: float

    @staticmethod
    def measured(device: torch.device, dtype: torch.dtype) -> "Rates":
        x, w = (torch.randn(size, 1024, dtype=dtype, device=device) for size in (1024, 4096))
        source = torch.ones(2**26, device=device)
        target = torch.empty_like(source)
        product = fastest(lambda: F.linear(x, w), device)
        copy = fastest(lambda: target.copy_(source), device)
        return Rates(2 * 1024 * 1024 * 4096 / product, 2 * source.nbytes / copy)

    def __str__(self) -> str:
        return f"{self.flops / 1e9:.0f} GFLOP/s in a matrix product, {self.bytes / 1e9:.1f} GB/s in a copy"


@dataclass(frozen=True)
class Floor:
    """Of a network at one image size: what a frame needs without a past, and what each token of the past adds."""

    rates: Rates
    frame_flops: int
    frame_bytes: int
    token_flops: int
    token_bytes: int

    @staticmethod
    def of(model: VGGT, frame: torch.Tensor, rates: Rates) -> "Floor":
        """
        Args:
            frame: (1, 1, 3, H, W)
        """
        # PyTorch's counter does not know its own attention for CPUs.
        on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
            model(frame)
        height, width = frame.shape[-2:]
        tokens = model.aggregator.num_special + height * width // model.patch_size**2
        channels = model.config["embed_dim"]
        return Floor(
            rates,
            counter.get_total_flops(),
            sum(parameter.nbytes for parameter in model.parameters()),
            4 * tokens * channels,
            2 * channels * next(model.parameters()).element_size(),
        )

    def milliseconds(self, memory: Memory) -> float:
        """For the next frame of a stream with this memory."""
        past = sum(memory.num_tokens)
        flops = self.frame_flops + past * self.token_flops
        needed = self.frame_bytes + past * self.token_bytes
        return 1000 * max(flops / self.rates.flops, needed / self.rates.bytes)


def attention_flops(q, k, v, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(q, k, v)


def fastest(call: Callable[[], object], device: torch.device, times: int = 20) -> float:
    """Seconds of the fastest of some calls."""
    seconds = []
    for _ in range(times):
        synchronize(device)
        begun = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
