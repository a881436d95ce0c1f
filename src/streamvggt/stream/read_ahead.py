"""Prepare frames in threads, a few frames ahead of the network, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

from streamvggt.model.device import available_cpus

Made = TypeVar("Made")
MAX_THREADS = 6
"""Bounds the memory, because each thread holds an image. A 1080p image takes 30 ms (benchmarks/pipeline.md)."""


def read_ahead(
    tasks: Generator[Callable[[], Made], None, None], num_threads: int | None = None
) -> Generator[Made, None, None]:
    """Run tasks in threads ahead of the iteration.

    One thread iterates over `tasks`, for example to decode a video. A pool calls the tasks, for example to resize the
    images. At most `num_threads` + 1 results are computed or wait, which bounds the memory. All threads end at the end
    of the iteration, at an error, and if the iterator is closed.

    Args:
        tasks: Functions without arguments, created one after the other.
        num_threads: Number of threads that call the tasks. None: as many as processors are available, at most
            `MAX_THREADS`.

    Yields:
        The results in the order of the tasks.

    Raises:
        Exception: Errors of a task or of `tasks`, after all earlier results.
    """
    num_threads = num_threads or min(available_cpus(), MAX_THREADS)
    results: SimpleQueue[Future[Made] | None] = SimpleQueue()
    room = threading.Semaphore(num_threads)
    stopped = threading.Event()

    def read(pool: ThreadPoolExecutor) -> None:
        try:
            with closing(tasks):
                for task in tasks:
                    results.put(pool.submit(task))
                    room.acquire()
                    if stopped.is_set():
                        return
            results.put(None)
        except BaseException as error:
            failed: Future[Made] = Future()
            failed.set_exception(error)
            results.put(failed)

    with ThreadPoolExecutor(num_threads, thread_name_prefix="prepare") as pool:
        reader = threading.Thread(target=read, args=(pool,), name="read", daemon=True)
        reader.start()
        try:
            while (result := results.get()) is not None:
                made = result.result()
                room.release()
                yield made
                del made, result  # the consumer alone keeps the frame
        finally:
            stopped.set()
            room.release()
            reader.join()
            pool.shutdown(cancel_futures=True)
