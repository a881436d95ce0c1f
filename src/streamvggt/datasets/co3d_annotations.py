"""CO3Dv2 (Reizenstein et al., arXiv 2109.00512): objects filmed from all around. For evaluation of poses.

ROOT/co3d_v2/<category>/<sequence>/images/frame%06d.jpg    as downloaded
ROOT/co3d_v2_annotations/<category>_train.jgz, <category>_test.jgz    gzipped JSON: {sequence: [{filepath, R, T,
                                                                      focal_length, principal_point}, …]}

RAW is the full download (RAW may be ROOT/co3d_v2), of which only annotations and lists are read:
     <category>/frame_annotations.jgz
                sequence_annotations.jgz
                set_lists/set_lists_fewview_dev.json    not in the single-sequence subset
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from streamvggt.choices import CO3D_CATEGORIES
from streamvggt.data.decode import DataError, decoding, read_json
from streamvggt.data.encode import write_image
from streamvggt.datasets._co3d_download import (
    FEW_VIEW_LIST,
    FRAMES,
    MIN_QUALITY,
    SEQUENCES,
    get_cameras,
    get_viewpoint,
    good_sequences,
    read_jgz,
    write_jgz,
)
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets._trajectory_set import TrajectorySet
from streamvggt.files import atomic_write, link_or_copy

FOLDER = "co3d_v2_annotations"
IMAGES = "co3d_v2"
SUBSETS = ("train", "test")
SET_LIST = FEW_VIEW_LIST.format("dev")
WRITTEN = ("apple", "vase")
"""Categories of fixtures."""

Frame = dict[str, Any]
"""An annotation: filepath, R, T, focal_length, principal_point."""


def read_annotations(folder: Path, category: str) -> dict[str, list[Frame]] | None:
    """Read the sequences of the test split of a category. None if the file does not exist.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / f"{category}_test.jgz"
    if not path.exists():
        return None
    sequences = read_jgz(path)
    with decoding(path, "{sequence: [{filepath, R, T}, …]} as `streamvggt data prepare co3d_annotations` writes it"):
        for frame in chain.from_iterable(sequences.values()):
            Path(frame["filepath"])
            get_cameras([frame])
    return sequences


class Co3dPoses(TrajectorySet):
    """Test split of all available categories. Annotations are in the folder beside the images."""

    name, folder = "CO3Dv2", IMAGES

    def __init__(self, root: str | Path):
        annotations = Path(root) / FOLDER
        self._frames = {
            f"{category}/{sequence}": frames
            for category in CO3D_CATEGORIES
            for sequence, frames in (read_annotations(annotations, category) or {}).items()
        }
        if not self._frames and (Path(root) / self.folder).is_dir():
            raise FileNotFoundError(
                f"{annotations} contains no annotations: make them with "
                f"`streamvggt data prepare co3d_annotations {Path(root) / self.folder} {root}`"
            )
        super().__init__(root)

    def list_scenes(self) -> list[str]:
        return list(self._frames)

    def images(self, sequence: str) -> list[Path]:
        return [self.root / frame["filepath"] for frame in self._frames[sequence]]

    def poses(self, sequence: str) -> Tensor:
        return get_cameras(self._frames[sequence])


def has_far_camera(frames: list[Frame]) -> bool:
    """Return whether the sum of a translation exceeds the published limit."""
    return any(sum(frame["T"]) > 1e5 for frame in frames)


def raw_scenes(raw: Path) -> list[str]:
    """Return the categories."""
    return sorted(path.parent.name for path in raw.glob(f"*/{FRAMES}"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    write_category(raw, scene, folder, MIN_QUALITY)


def finish(raw: Path, out: Path) -> None:
    """Collect the files of all categories in the folder that the evaluation reads."""
    for path in out.glob("*/*.jgz"):
        (out / path.name).unlink(missing_ok=True)
        link_or_copy(path, out / path.name)


def write_category(raw: Path, category: str, folder: Path, min_quality: float) -> None:
    """Write the annotations of a category.

    Raises:
        SkipScene: If the category has no few-view lists.
        DataError: If a file is damaged.
    """
    lists = raw / category / SET_LIST
    if not lists.exists():
        raise SkipScene(f"no {lists}; the full download of CO3Dv2 contains it, the single-sequence subset does not")
    found = read_jgz(raw / category / FRAMES), read_jgz(raw / category / SEQUENCES), read_json(lists)
    with decoding(raw / category, f"annotations of frames and sequences, and {SET_LIST}, as CO3Dv2 describes them"):
        annotations = select(*found, min_quality)
    for subset, sequences in annotations.items():
        with atomic_write(folder / f"{category}_{subset}.jgz") as path:
            write_jgz(path, sequences)


def select(
    frames: Sequence[dict[str, Any]],
    sequences: Sequence[dict[str, Any]],
    set_lists: dict[str, Sequence[tuple[str, int, str]]],
    min_quality: float = MIN_QUALITY,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Select the listed frames of good sequences for each subset, in the order of the lists.

    Args:
        frames, sequences: Annotations of the download.
        set_lists: (sequence, frame number, path) of each subset.

    Returns:
        Subset → sequence → frames with filepath, R, T, focal_length, principal_point.
    """
    good = good_sequences(sequences, min_quality)
    is_index_based = {(frame["sequence_name"], frame["frame_number"]): frame for frame in frames}
    chosen: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for subset in SUBSETS:
        chosen[subset] = {}
        for sequence, number, path in set_lists[subset]:
            if sequence not in good:
                continue
            frame = is_index_based.get((sequence, number))
            if frame is None or frame["image"]["path"] != path:
                raise DataError(f"the {subset} list has {path}, of which frame_annotations.jgz has no frame {number}")
            view = frame["viewpoint"]
            camera = {name: view[name] for name in ("R", "T", "focal_length", "principal_point")}
            chosen[subset].setdefault(sequence, []).append({"filepath": path, **camera})
    return chosen


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures: clips alternate between two categories, all in the test set, plus one sequence of low quality."""
    root = out / IMAGES
    written = []
    for place, category in enumerate(WRITTEN):
        frames, sequences, test = [], [], []
        for number, clip in enumerate(clips[place :: len(WRITTEN)]):
            sequence = f"110_13051_{23361 + number}"
            sequences.append({"sequence_name": sequence, "category": category, "viewpoint_quality_score": 0.9})
            names = [f"frame{frame + 1:06d}" for frame in range(len(clip))]
            for frame, (name, view) in enumerate(zip(names, clip, strict=True)):
                path = f"{category}/{sequence}/images/{name}.jpg"
                write_image(root / path, view)
                frames.append(
                    {
                        "sequence_name": sequence,
                        "frame_number": frame,
                        "image": {"path": path, "size": list(view.depth.shape)},
                        "viewpoint": get_viewpoint(view),
                    }
                )
                test.append([sequence, frame, path])
            written.append(WrittenScene(f"{category}/{sequence}", names))
        if not sequences:
            continue
        bad = {"sequence_name": "12_100_593", "category": category, "viewpoint_quality_score": 0.5}
        write_jgz(root / category / FRAMES, frames)
        write_jgz(root / category / SEQUENCES, [*sequences, bad])
        lists = root / category / SET_LIST
        lists.parent.mkdir(parents=True, exist_ok=True)
        left_out = ["12_100_593", 0, f"{category}/12_100_593/images/frame000001.jpg"]
        lists.write_text(json.dumps({"train": test[:1], "val": [], "test": [left_out, *test]}), encoding="utf-8")
        write_category(root, category, out / FOLDER / category, MIN_QUALITY)
    finish(root, out / FOLDER)
    return written
