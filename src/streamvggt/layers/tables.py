"""Tensors that depend on nothing but sizes: made once, kept for later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps

import torch
from torch import Tensor

_recorded: ContextVar[list[Tensor] | None] = ContextVar("handed_out", default=None)


def cached_table(maxsize: int) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Makes of a function of sizes, device and dtype one that answers from memory, the latest `most` tables.

    Tables are no part of a network's state, and to a compiler they are constants. Nobody may write into one.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @lru_cache(maxsize=maxsize)
        @torch.inference_mode(False)  # a table may meet a gradient later
        @torch.no_grad()
        def made(*arguments) -> Tensor:
            return function(*arguments)

        @torch.compiler.assume_constant_result
        @wraps(function)
        def found(*arguments) -> Tensor:
            answer = made(*arguments)
            handed_out = _recorded.get()
            if handed_out is not None:
                handed_out.append(answer)
            return answer

        found.forget = made.cache_clear
        return found

    return decorate


@contextmanager
def record_tables() -> Iterator[list[Tensor]]:
    """All tables that anybody asks for meanwhile: whoever records addresses must keep what lies there."""
    token = _recorded.set([])
    try:
        yield _recorded.get()
    finally:
        _recorded.reset(token)
