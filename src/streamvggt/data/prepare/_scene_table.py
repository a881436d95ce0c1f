"""The files of a scene's cameras and of a set's scenes; `sources/_scene_table.py` reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, world_from_cam
from streamvggt.data.prepare._covisibility import Small
from streamvggt.data.view import View
from streamvggt.files import atomic_write


class SceneTable:
    """The table of a scene, frame by frame.

    intrinsics_of: how the set writes a view's intrinsics: (6,) or (3, 3).
    groups: says which frames see the same; None for a set that does not say.
    """

    def __init__(
        self,
        intrinsics_of: Callable[[str, View], np.ndarray],
        groups: Callable[[Sequence[Small]], Mapping[int, Sequence[tuple[int, float]]]] | None,
    ):
        self._intrinsics_of = intrinsics_of
        self._groups = groups
        self._names: list[str] = []
        self._intrinsics: list[np.ndarray] = []
        self._poses: list[np.ndarray] = []
        self._smalls: list[Small] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, view: View) -> None:
        self._names.append(name)
        self._intrinsics.append(self._intrinsics_of(name, view))
        self._poses.append(world_from_cam(view))
        if self._groups is not None:
            self._smalls.append(Small.of(depth_array(view), view.intrinsics.numpy(), self._poses[-1]))

    def write(self, path: Path) -> None:
        more = {}
        if self._groups is not None:
            groups = self._groups(self._smalls)
            pairs = [(i, j, share) for i, neighbours in groups.items() for j, share in neighbours]
            more = {
                "pairs": np.array(pairs, np.float64).reshape(-1, 3),
                "image_collection": np.array(groups, dtype=object),
            }
        np.savez(
            path,
            images=np.array(self._names),
            intrinsics=np.array(self._intrinsics, np.float64),
            trajectories=np.stack(self._poses),
            **more,
        )


def write_scene_list(path: Path, table: str) -> None:
    """The file of a set's scenes: the folders beside it that have a `table`."""
    scenes = sorted(found.parent.name for found in path.parent.glob(f"[!.]*/{table}"))
    with atomic_write(path) as unfinished:
        np.savez(unfinished, scenes=np.array(scenes, dtype=str))
