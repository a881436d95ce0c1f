"""Types of command-line flags: what is out of range or empty is refused at the door, in one way."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

MANY = 10**9


def whole(low: int = 1, high: int = MANY) -> Callable[[str], int]:
    """Whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text!r:.40}")
        return number

    return parse


def real(low: float, high: float) -> Callable[[str], float]:
    """Numbers from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}, got {text!r:.40}")
        return number

    return parse


def word(text: str) -> str:
    """Any text but an empty one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a value, got an empty one")
    return text


def some_path(text: str) -> Path:
    """A file or folder; an empty name is none."""
    return Path(word(text))
