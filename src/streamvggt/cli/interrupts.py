"""Ctrl-C and termination signals during a run: the current frame is finished first."""

from __future__ import annotations

import os
import signal

from tqdm import tqdm

from streamvggt.cli.streams import discard


class InterruptHandler:
    """Finish the current frame after Ctrl-C, SIGTERM or SIGHUP. A second signal stops immediately."""

    def __init__(self):
        self._asked = False
        self._before = {}
        self._terminals: list[int] = []

    def __enter__(self) -> InterruptHandler:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):  # nohup
                continue
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._asked

    def _ask(self, number: int, stack) -> None:
        if number == getattr(signal, "SIGHUP", None):
            discard(*self._terminals)  # the terminal is closed, so that writing to it raises an error
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        tqdm.write("Stopping after the current frame. Press Ctrl-C again to stop immediately.")
