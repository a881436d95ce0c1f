"""CO3Dv2's cameras of good sequences, as the evaluation of poses reads them.

RAW is the download, of which only annotations and lists are read:

RAW/<category>/frame_annotations.jgz
               sequence_annotations.jgz
               set_lists/set_lists_fewview_dev.json    in the full download only, not in the single-sequence subset

ROOT/co3d_v2_annotations/<category>_train.jgz, <category>_test.jgz    {sequence: [{filepath, R, T, …}, …]}
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamvggt.data.decode import BadData, read_json
from streamvggt.data.prepare._runner import Skip
from streamvggt.files import atomic_write, link_or_copy

FOLDER = "co3d_v2_annotations"
MIN_QUALITY = 0.5
"""A sequence's viewpoint quality must be above this."""
SUBSETS = ("train", "test")
SET_LIST = "set_lists/set_lists_fewview_dev.json"


def scenes(raw: Path) -> list[str]:
    """Categories."""
    return sorted(path.parent.name for path in raw.glob("*/frame_annotations.jgz"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    write_category(raw, scene, folder, MIN_QUALITY)


def finish(raw: Path, out: Path) -> None:
    """The files of all categories side by side, where the evaluation looks for them."""
    for path in out.glob("*/*.jgz"):
        (out / path.name).unlink(missing_ok=True)
        link_or_copy(path, out / path.name)


def write_category(raw: Path, category: str, folder: Path, min_quality: float) -> None:
    """
    Raises:
        Skip: the category has no few-view lists.
        BadData: a file is damaged.
    """
    lists = raw / category / SET_LIST
    if not lists.exists():
        raise Skip(f"there is no {lists}; the single-sequence subset of CO3Dv2 has none, the full download does")
    annotations = select(
        read_jgz(raw / category / "frame_annotations.jgz"),
        read_jgz(raw / category / "sequence_annotations.jgz"),
        read_json(lists),
        min_quality,
    )
    for subset, sequences in annotations.items():
        # No time stamp, so that the same annotations are the same bytes.
        content = gzip.compress(json.dumps(sequences).encode(), mtime=0)
        with atomic_write(folder / f"{category}_{subset}.jgz") as path:
            path.write_bytes(content)


def select(
    frames: Sequence[dict[str, Any]],
    sequences: Sequence[dict[str, Any]],
    set_lists: dict[str, Sequence[tuple[str, int, str]]],
    min_quality: float = MIN_QUALITY,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Of each subset the listed frames of good sequences, in the order of the lists.

    Args:
        frames, sequences: the download's annotations.
        set_lists: subset → (sequence, frame number, path).

    Returns:
        subset → sequence → frames with filepath, R, T, focal_length, principal_point.
    """
    good = {one["sequence_name"] for one in sequences if one["viewpoint_quality_score"] > min_quality}
    by_number = {(frame["sequence_name"], frame["frame_number"]): frame for frame in frames}
    chosen: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for subset in SUBSETS:
        chosen[subset] = {}
        for sequence, number, path in set_lists[subset]:
            if sequence not in good:
                continue
            frame = by_number.get((sequence, number))
            if frame is None or frame["image"]["path"] != path:
                raise BadData(f"the {subset} list has {path}, of which frame_annotations.jgz has no frame {number}")
            view = frame["viewpoint"]
            camera = {name: view[name] for name in ("R", "T", "focal_length", "principal_point")}
            chosen[subset].setdefault(sequence, []).append({"filepath": path, **camera})
    return chosen


def read_jgz(path: Path):
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (EOFError, zlib.error, ValueError, gzip.BadGzipFile) as error:
        raise BadData(f"{path} is damaged ({error}); download it again") from error
