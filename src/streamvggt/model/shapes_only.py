"""Build networks without values, on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

IN_PLACE = frozenset({Tensor.uniform_, Tensor.zero_, Tensor.fill_, Tensor.copy_, Tensor.mul_})
"""In-place functions that constructors of networks call."""


@contextmanager
def shapes_only() -> Iterator[None]:
    """Create tensors on the meta device, and skip the initialization of parameters, within the context.

    PyTorch initializes meta tensors in Python code that imports its compiler (1.4 s of processor time, 70 MB).
    """
    with torch.device("meta"), _SkipInitialization():
        yield


class _SkipInitialization(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        is_scaling = function in (Tensor.mul, Tensor.div) and not isinstance(args[1], Tensor)
        if function in IN_PLACE or is_scaling:
            return args[0]
        return (torch.empty if function is torch.randn else function)(*args, **(kwargs or {}))
