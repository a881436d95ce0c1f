"""How a cache stores keys and values: as they are, or in a byte each.

A stored tensor is one or several planes that share all dimensions but the last, so that a cache can move tokens about
without knowing what they are made of.

B streams · N heads · T tokens · D head width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KVCacheDtype = Literal["auto", "int8"]


class NoQuantizer:
    """One plane: the tensor itself."""

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, N, T, D) → planes, (B, N, T, any) each"""
        return [x]

    def decode(self, planes: list[Tensor]) -> Tensor:
        """Planes → (B, N, T, D), a view of them where that is possible"""
        return planes[0]


class Int8Quantizer(NoQuantizer):
    """Two planes: whole numbers of a byte, and for each token and head what they are to be multiplied with.

    A bit more than half of bfloat16's bytes. Whoever reads a cache gets a copy in the number format that came.
    """

    # A factor rounded down in bfloat16 makes of it 127.25 at most, which is still a byte.
    QMAX = 127

    def encode(self, x: Tensor) -> list[Tensor]:
        exact = torch.promote_types(x.dtype, torch.float32)
        factor = x.abs().amax(-1, keepdim=True).to(exact) / self.QMAX
        factor = factor.clamp(min=torch.finfo(x.dtype).tiny).to(x.dtype)
        return [(x / factor.to(exact)).round().to(torch.int8), factor]

    def decode(self, planes: list[Tensor]) -> Tensor:
        numbers, factor = planes
        return numbers * factor


QUANTIZERS: dict[str, NoQuantizer] = {"auto": NoQuantizer(), "int8": Int8Quantizer()}


def get_quantizer(name: str) -> NoQuantizer:
    """The storage called `name`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in QUANTIZERS:
        raise ValueError(f"storage={name!r} is unknown; choose one of {', '.join(QUANTIZERS)}")
    return QUANTIZERS[name]
