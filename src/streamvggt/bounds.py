"""Range checks of numbers in configurations."""

from __future__ import annotations

MANY = 10**9


def check_whole(low: int, high: int = MANY, /, **given: object) -> None:
    """Check that values are integers in a range.

    Args:
        low: Smallest accepted value.
        high: Largest accepted value.
        given: Values by the name to use in the message.

    Raises:
        ValueError: If a value is not an integer from `low` to `high`.
    """
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            wanted = f"of at least {low}" if high == MANY else f"from {low} to {high}"
            raise ValueError(f"{name}: expected a whole number {wanted}, got {value!r:.40}")


def check_real(low: float, high: float, /, **given: object) -> None:
    """Check that values are numbers in a range.

    Args:
        low: Smallest accepted value.
        high: Largest accepted value.
        given: Values by the name to use in the message.

    Raises:
        ValueError: If a value is not a number from `low` to `high`.
    """
    for name, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r:.40}")


def check_frames(num_frames: object, max_images: object) -> None:
    """Check the sequence lengths of a batch sampler.

    Args:
        num_frames: Minimum and maximum number of frames per sequence.
        max_images: Maximum number of images per batch.

    Raises:
        ValueError: If the numbers are not integers with 1 ≤ minimum ≤ maximum ≤ `max_images`.
    """
    if not isinstance(num_frames, list | tuple) or len(num_frames) != 2:
        raise ValueError(f"num_frames: expected two whole numbers, fewest and most, got {num_frames!r:.40}")
    fewest, most = num_frames
    check_whole(1, num_frames=fewest)
    check_whole(1, num_frames=most)
    check_whole(1, max_images_per_process=max_images)
    if not fewest <= most <= max_images:
        raise ValueError(f"num_frames={fewest, most} must be 1 ≤ fewest ≤ most ≤ max_images_per_process={max_images}")
