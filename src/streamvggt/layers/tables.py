"""Cache for tensors that depend only on sizes, device and dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps

import torch
from torch import Tensor

_recorded: ContextVar[list[Tensor] | None] = ContextVar("recorded", default=None)


def cached_table(maxsize: int) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Return a decorator that caches the results of a function of sizes, device and dtype.

    Tables are not part of the state dict, and `torch.compile` treats them as constants. Do not modify them in place.

    Args:
        maxsize: Maximum number of cached tables. The least recently used table is dropped first.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @lru_cache(maxsize=maxsize)
        @torch.inference_mode(False)  # tables can be used with gradients later
        @torch.no_grad()
        def compute(*arguments) -> Tensor:
            return function(*arguments)

        @wraps(function)
        def lookup(*arguments) -> Tensor:
            table = compute(*arguments)
            recorded = _recorded.get()
            if recorded is not None:
                recorded.append(table)
            return table

        # As `torch.compiler.assume_constant_result`, which imports the compiler (1.4 s of processor time).
        lookup._dynamo_marked_constant = True
        lookup.cache_clear = compute.cache_clear
        return lookup

    return decorate


@contextmanager
def record_tables() -> Iterator[list[Tensor]]:
    """Collect all tables requested within the context. Keep them as long as a CUDA graph uses their addresses."""
    token = _recorded.set([])
    try:
        yield _recorded.get()
    finally:
        _recorded.reset(token)
