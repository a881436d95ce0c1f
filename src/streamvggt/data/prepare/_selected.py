"""The lists of CO3D and WildRGB-D, selected_seqs_<split>.json; `sources/_selected.py` reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from streamvggt.files import atomic_write


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
