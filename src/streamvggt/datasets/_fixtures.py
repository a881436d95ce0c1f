"""Fixtures: views written in the layout of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from streamvggt.data.view import View
from streamvggt.datasets._files import FrameFiles

MARK = ".fixtures"
"""Hidden file that marks a folder of fixtures, so that their results are not mistaken for those of the set."""

Clip = Sequence[View]
"""Views of one scene in temporal order."""


@dataclass(frozen=True)
class WrittenScene:
    """Place of a clip: the scene and its frames, by the names that the reader of the set uses."""

    scene: str
    frames: list[str]


def write_clips(
    files: FrameFiles,
    root: Path,
    clips: Sequence[Clip],
    scenes: Iterable[str],
    frame: str,
    *,
    first: int = 0,
    depth: Callable[[View], np.ndarray] | None = None,
) -> list[WrittenScene]:
    """Write clips as scenes of a set that stores each frame in files of its own.

    Args:
        root: Folder of the scenes.
        scenes: Names; clips without a name are skipped.
        frame: Name of a frame by its number, e.g. "{:04d}".
        first: Number of the first frame.
        depth: Depth to write in place of the view's, e.g. with a marked sky.
    """
    written = []
    for scene, clip in zip(scenes, clips, strict=False):
        names = [frame.format(first + number) for number in range(len(clip))]
        for name, view in zip(names, clip, strict=True):
            files.write(root / scene, name, view, None if depth is None else depth(view))
        written.append(WrittenScene(scene, names))
    return written


def mark(folder: Path) -> None:
    """Mark everything below a folder as fixtures."""
    (folder / MARK).write_text(
        "Written by `streamvggt data make-fixtures`: not the published data.\n", encoding="utf-8"
    )


def are_fixtures(folder: Path) -> bool:
    """Return whether a folder, or one of its parents, is marked as fixtures."""
    folder = folder.resolve()
    return any((parent / MARK).exists() for parent in (folder, *folder.parents))


def near_mask(view: View) -> Tensor:
    """Return 255 for pixels nearer than the median depth, 0 elsewhere. (H, W) int64"""
    return 255 * (view.valid & (view.depth <= view.depth.median())).long()


def neighbors_in_time(frames: Sequence) -> dict[int, list[tuple[int, float]]]:
    """For each frame, return all others with a share that falls with the distance in time."""
    numbers = range(len(frames))
    return {i: [(j, 1 / (1 + abs(i - j))) for j in numbers if j != i] for i in numbers}
