"""Sequences selected by a JSON file {category: {sequence: [frame numbers]}}: CO3D and WildRGB-D."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from streamvggt.data.decode import decoding
from streamvggt.data.file_index import FileIndex
from streamvggt.files import atomic_write


def selected_sequences(listing: FileIndex, path: Path, frame_name: str) -> dict[str, list[str]]:
    """Return the scenes "category/sequence" and their frames in temporal order.

    Args:
        listing: File index that records the files it reads.
        path: The JSON file.
        frame_name: Format of a frame name, as "{:05d}".

    Raises:
        DataError: If the file has another format.
    """
    selected = listing.json(path)
    scenes = {}
    with decoding(path, "{category: {sequence: [frame numbers]}}"):
        for category, sequences in selected.items():
            for sequence, numbers in sequences.items():
                scenes[f"{category}/{sequence}"] = [frame_name.format(number) for number in sorted(set(numbers))]
    return scenes


def write_selected(out: Path, scenes_of: Mapping[str, Iterable[str]], images: str) -> None:
    """Write the selection files of prepared scenes.

    Args:
        out: Folder of the set.
        scenes_of: Scenes "category/sequence" of each split. Missing scenes are omitted.
        images: Pattern of the images in the folder of a scene. The number in the file name is the frame number.
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
    """Draw at most `count` of the names with a fixed seed. Returns them sorted."""
    names = sorted(names)
    random = np.random.default_rng(zlib.crc32(seed.encode()))
    return sorted(random.choice(names, count, replace=False).tolist()) if len(names) > count else names
