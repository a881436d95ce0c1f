"""Work in threads, in order: reading files and OpenCV leave Python free to do several at once."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


def thread_map(
    function: Callable[[Given], Made], items: Iterable[Given], num_threads: int | None = None
) -> Iterator[Made]:
    """As `map`, a few items ahead of whoever iterates; results come in the order of the items.

    Args:
        num_threads: None: the processors this process may use.
    """
    num_threads = num_threads or num_cpus()
    with ThreadPoolExecutor(num_threads) as pool:
        ahead: deque = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > num_threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """PyTorch does not divide its work further, where many threads have some of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def num_cpus() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
