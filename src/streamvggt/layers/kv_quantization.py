"""Number formats of the KV cache: unquantized or int8.

A stored tensor consists of planes that have equal dimensions except for the last. The cache moves tokens by plane,
independent of the format.

B streams · N heads · T tokens · D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


class NoQuantizer:
    """Store tensors unchanged, as one plane."""

    def encode(self, x: Tensor) -> list[Tensor]:
        """Convert a tensor to planes. (B, N, T, D) → (B, N, T, any) each"""
        return [x]

    def decode(self, planes: list[Tensor]) -> Tensor:
        """Convert planes to a tensor (B, N, T, D), a view where possible."""
        return planes[0]


class Int8Quantizer(NoQuantizer):
    """Store int8 values and one scale per token and head, as two planes.

    The size is slightly more than half of bfloat16. Decoding returns a copy in the original number format.
    """

    # If the scale is rounded down to bfloat16, values reach 127.25 at most, which still rounds to int8.
    QMAX = 127

    def encode(self, x: Tensor) -> list[Tensor]:
        """Quantize a tensor. (B, N, T, D) → int8 values (B, N, T, D) and scales (B, N, T, 1)"""
        exact = torch.promote_types(x.dtype, torch.float32)
        factor = x.abs().amax(-1, keepdim=True).to(exact) / self.QMAX
        factor = factor.clamp(min=torch.finfo(x.dtype).tiny).to(x.dtype)
        return [(x / factor.to(exact)).round().to(torch.int8), factor]

    def decode(self, planes: list[Tensor]) -> Tensor:
        """Dequantize planes to a tensor (B, N, T, D)."""
        numbers, factor = planes
        return numbers * factor


QUANTIZERS: dict[str, NoQuantizer] = {"auto": NoQuantizer(), "int8": Int8Quantizer()}


def get_quantizer(name: str) -> NoQuantizer:
    """Return the quantizer of a KV cache dtype.

    Args:
        name: "auto" or "int8".

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in QUANTIZERS:
        raise ValueError(f"kv_cache_dtype={name!r} is unknown; choose one of {', '.join(QUANTIZERS)}")
    return QUANTIZERS[name]
