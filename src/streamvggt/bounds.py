"""Numbers of configurations: what is out of range is refused before anything is built, in one way."""

from __future__ import annotations

MANY = 10**9


def check_whole(low: int, high: int = MANY, /, **given: object) -> None:
    """
    Raises:
        ValueError: One of the values is no whole number from `low` to `high`.
    """
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            wanted = f"of at least {low}" if high == MANY else f"from {low} to {high}"
            raise ValueError(f"{name}: expected a whole number {wanted}, got {value!r:.40}")


def check_real(low: float, high: float, /, **given: object) -> None:
    """
    Raises:
        ValueError: One of the values is no number from `low` to `high`.
    """
    for name, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r:.40}")


def check_frames(fewest: object, most: object, max_images: object) -> None:
    """
    Raises:
        ValueError: Lengths of sequences do not lie within a batch.
    """
    check_whole(1, num_frames=fewest)
    check_whole(1, num_frames=most)
    check_whole(1, max_images_per_process=max_images)
    if not fewest <= most <= max_images:
        raise ValueError(f"num_frames={fewest, most} must be 1 ≤ fewest ≤ most ≤ max_images_per_process={max_images}")
