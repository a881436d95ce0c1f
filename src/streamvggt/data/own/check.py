"""Whether scenes of your own are read as meant: files, sizes, poses, and the agreement of neighboring views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from streamvggt.data.check import CheckReport, check
from streamvggt.data.own.frame import read_frame
from streamvggt.data.own.scene import find_layout, get_labels, read_scene
from streamvggt.data.view import View


class OneScene:
    """A scene as what `check` reads. Without depth, everything is sky, so that no depth is missing."""

    def __init__(self, name: str, path: Path, depth_unit: float | None = None):
        """
        Raises:
            DataError: See `read_scene`.
        """
        frames = read_scene(path, depth_unit)
        self.path, self.labels = path, get_labels(frames)
        self.scenes = [name]
        self._frames = {frame.name: frame for frame in frames}

    def frames(self, scene: str) -> list[str]:
        return list(self._frames)

    def read(self, scene: str, frame: str) -> View:
        view = read_frame(self._frames[frame])
        return view if "depth" in self.labels else replace(view, sky=torch.ones_like(view.sky))

    def __str__(self) -> str:
        """Layout and labels."""
        labels = " and ".join(self.labels) if self.labels else "no labels (for distillation)"
        return f"{find_layout(self.path).name}, {labels}"


def check_scene(scene: OneScene, **options) -> CheckReport:
    """Look through one scene; see `check` for the options.

    Scenes without depth are not compared: their files, sizes and poses are checked only.
    """
    (name,) = scene.scenes
    return check(scene, name=name, has_cameras="depth" in scene.labels, **options)
