"""Work in threads, in order: reading files and OpenCV leave Python free to do several at once."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_threads(
    function: Callable[[Given], Made], items: Iterable[Given], num_threads: int | None = None
) -> Iterator[Made]:
    """As `map`, a few items ahead of whoever iterates; results come in the order of the items.

    Args:
        num_threads: None: the processors this process may use.
    """
    num_threads = num_threads or len(os.sched_getaffinity(0))
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
