"""Time of the steps of a stream."""

from __future__ import annotations

import time
from collections.abc import Collection

import numpy as np
import torch

MAX_TIMINGS = 1000  # latest frames in the statistics


def timing_percentiles(times: Collection[Timer]) -> tuple[float | None, float | None]:
    """Return median and 95th percentile in milliseconds, or None before the first step. Waits for the device."""
    milliseconds = [timer.milliseconds() for timer in times]
    return tuple(np.percentile(milliseconds, [50, 95]).tolist()) if milliseconds else (None, None)


class Timer:
    """Measure the time of one step in milliseconds.

    On CUDA the timer uses events, so that it synchronizes only when `milliseconds` is read.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._start = self._mark()

    def stop(self) -> None:
        self._end = self._mark()

    def milliseconds(self) -> float:
        if self._device.type != "cuda":
            return (self._end - self._start) * 1000
        self._end.synchronize()
        return self._start.elapsed_time(self._end)

    def _mark(self):
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
