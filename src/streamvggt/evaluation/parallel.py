"""Run work in threads with ordered results. File access and OpenCV release the GIL."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from streamvggt.stream.read_ahead import read_ahead

Given = TypeVar("Given")
Made = TypeVar("Made")


def thread_map(
    function: Callable[[Given], Made], items: Iterable[Given], num_threads: int | None = None
) -> Iterator[Made]:
    """Apply a function as `map` in threads, a few items ahead of the iteration. Results keep the order of the items.

    Args:
        function: The function.
        items: Its arguments.
        num_threads: Number of threads. None uses `num_cpus()`.
    """
    return read_ahead((partial(function, item) for item in items), num_threads or num_cpus())


def num_cpus() -> int:
    """Return the number of processors available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
