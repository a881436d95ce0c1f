"""Scenes of your own as a source of training samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath

from streamvggt.data.dataset import MultiViewDataset
from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError
from streamvggt.data.own.frame import read_frame
from streamvggt.data.own.scene import LABELS, get_labels, read_scene, scenes_under
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.view import View


class OwnScenes(DatasetReader):
    """The scenes under a path, in any of the layouts of docs/own-data.md."""

    name = "Own data"
    folder = ""
    is_metric = False
    docs_page = "docs/own-data.md"
    view_sampler = ClipSampler(max_interval=8)

    def __init__(self, path: str | Path | None, needs: Sequence[str] = (), depth_unit: float | None = None):
        """
        Args:
            path: A scene, or a folder of scenes.
            needs: Those of `LABELS` that every frame must have.
            depth_unit: Scene units per step of 16-bit depth; None: The default of the layout.

        Raises:
            FileNotFoundError: If there is nothing at `path`, or no path.
            DataError: If a scene is damaged or lacks a label.
        """
        if unknown := set(needs) - set(LABELS):
            raise ValueError(f"needs: expected {', '.join(LABELS)}, got {', '.join(sorted(unknown))}.")
        if path is None:
            raise FileNotFoundError("data.path, data.validation_path: expected scenes, got null.")
        self.root, self.split = Path(path), self.splits[0]
        self._scenes, self.labels = {}, {}
        for name, scene_path in scenes_under(self.root).items():
            frames = read_scene(scene_path, depth_unit)
            self._scenes[name] = {frame.name: frame for frame in frames}
            self.labels[name] = get_labels(frames)
            if missing := [label for label in needs if label not in self.labels[name]]:
                raise DataError(
                    f"{scene_path}: expected {' and '.join(needs)} for every frame, got no {' and '.join(missing)}. "
                    "Add them, or distill from a teacher (docs/own-data.md)."
                )
        self._frames = {name: list(frames) for name, frames in self._scenes.items()}
        self.scenes = sorted(self._frames)

    def segments(self, scene: str) -> list[Sequence[int]]:
        """Frames of one folder are a run, so that the cameras of a rig, each in its folder, are not mixed."""
        numbered = enumerate(self.frames(scene))
        return [
            [number for number, _ in run] for _, run in groupby(numbered, lambda item: PurePosixPath(item[1]).parent)
        ]

    def read(self, scene: str, frame: str) -> View:
        return read_frame(self._scenes[scene][frame])


def own_data(
    path: str | Path | None,
    needs: Sequence[str] = (),
    depth_unit: float | None = None,
    max_interval: int = 8,
    **options,
) -> MultiViewDataset:
    """Build training samples of `OwnScenes`: clips, in the order of time or shuffled.

    Args:
        path: A scene, or a folder of scenes; None: There are none, which `held_out_sequences` reports.
        needs, depth_unit: See `OwnScenes`.
        max_interval: Largest step between neighboring views, in frames.
        options: See `MultiViewDataset`.
    """
    opened = partial(OwnScenes, path, needs, depth_unit)
    return MultiViewDataset(opened, path, view_sampler=ClipSampler(max_interval=max_interval), **options)
