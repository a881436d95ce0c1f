"""Sequences chosen by a JSON file, {category: {sequence: [frame numbers]}}: CO3D and WildRGB-D."""

from __future__ import annotations

from pathlib import Path

from streamvggt.data.decode import BadData
from streamvggt.data.listing import Listing


def selected_sequences(listing: Listing, path: Path, frame_name: str) -> dict[str, list[str]]:
    """Scenes "category/sequence" and their frames in the order of time, whatever the order in the file.

    Args:
        frame_name: how a number makes a name, as "{:05d}".

    Raises:
        BadData: the file says something else.
    """
    selected = listing.json(path)
    scenes = {}
    try:
        for category, sequences in selected.items():
            for sequence, numbers in sequences.items():
                scenes[f"{category}/{sequence}"] = [frame_name.format(number) for number in sorted(set(numbers))]
    except (AttributeError, TypeError, ValueError) as error:
        raise BadData(f"{path}: {{category: {{sequence: [frame numbers]}}}} was expected ({error})") from error
    return scenes
