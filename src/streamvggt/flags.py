"""Argparse types with range checks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

MANY = 10**9
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def whole(low: int = 1, high: int = MANY) -> Callable[[str], int]:
    """Return an argparse type for integers from `low` to `high`."""

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
    """Return an argparse type for numbers from `low` to `high`."""

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
    """Parse non-empty text.

    Raises:
        argparse.ArgumentTypeError: If the text is empty or blank.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a value, got an empty one")
    return text


def image_path(text: str) -> Path:
    """Parse the path of an image to write.

    Raises:
        argparse.ArgumentTypeError: If the suffix is not that of an image format, or the path is a folder.
    """
    path = some_path(text)
    if path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected an image file ({', '.join(IMAGE_SUFFIXES)}), got {text!r:.60}")
    return path


def some_path(text: str) -> Path:
    """Parse the path of a file or folder.

    Raises:
        argparse.ArgumentTypeError: If the text is empty or blank.
    """
    return Path(word(text))
