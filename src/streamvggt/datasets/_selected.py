"""Sequences chosen by a JSON file, {category: {sequence: [frame numbers]}}: CO3D and WildRGB-D."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from streamvggt.data.decode import DataError
from streamvggt.data.file_index import FileIndex
from streamvggt.files import atomic_write


def selected_sequences(listing: FileIndex, path: Path, frame_name: str) -> dict[str, list[str]]:
    """Scenes "category/sequence" and their frames in the order of time, whatever the order in the file.

    Args:
        frame_name: how a number makes a name, as "{:05d}".

    Raises:
        DataError: the file says something else.
    """
    selected = listing.json(path)
    scenes = {}
    try:
        for category, sequences in selected.items():
            for sequence, numbers in sequences.items():
                scenes[f"{category}/{sequence}"] = [frame_name.format(number) for number in sorted(set(numbers))]
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {{category: {{sequence: [frame numbers]}}}} was expected ({error})") from error
    return scenes


def write_selected(out: Path, scenes_of: Mapping[str, Iterable[str]], images: str) -> None:
    """List the frames of prepared scenes.

    Args:
        scenes_of: by split, "category/sequence"; what is not there is not listed.
        images: pattern of a frame's image in the folder of its scene; the number in its name is the frame's.
    """
    for split, scenes in scenes_of.items():
        selected: dict[str, dict[str, list[int]]] = {}
        for scene in sorted(scenes):
            category, _, sequence = scene.partition("/")
            numbers = sorted(int(re.search(r"\d+", image.stem)[0]) for image in (out / scene).glob(images))
            if numbers:
                selected.setdefault(category, {})[sequence] = numbers
        with atomic_write(out / f"selected_seqs_{split}.json") as path:
            path.write_text(json.dumps(selected), encoding="utf-8")


def draw(names: Iterable[str], count: int, seed: str) -> list[str]:
    """At random, as published, but the same each time: at most `count` of the names, sorted."""
    names = sorted(names)
    random = np.random.default_rng(zlib.crc32(seed.encode()))
    return sorted(random.choice(names, count, replace=False).tolist()) if len(names) > count else names
