"""What both forms of ARKitScenes share: the depth of the tablet's own sensor, and that of a laser scanner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from streamvggt.data.decode import BadData, read_colour, read_png16
from streamvggt.data.source import Source
from streamvggt.data.sources._scene_table import scene_cameras
from streamvggt.data.view import View


class ARKitFrames(Source):
    """
    table: name of the file of a scene's cameras.
    depth_folder: of a scene.
    split_folders: by split.
    """

    is_metric = True
    splits = ("train", "test")
    table: ClassVar[str]
    depth_folder: ClassVar[str]
    split_folders: ClassVar[Mapping[str, str]]

    @property
    def split_folder(self) -> Path:
        return self.root / self.split_folders[self.split]

    def read(self, scene: str, frame: str) -> View:
        folder = self.split_folder / scene
        path = folder / f"vga_wide/{frame}.jpg"
        camera = scene_cameras(folder / self.table)[frame]
        image = read_colour(path)
        if image.shape[:2] != camera.size:
            raise BadData(f"{path}: the image has {image.shape[:2]} pixels, its camera in {self.table} {camera.size}")
        return self.view(
            path,
            image=image,
            depth=read_png16(folder / self.depth_folder / f"{frame}.png") / 1000,
            intrinsics=camera.intrinsics,
            world_from_cam=camera.world_from_cam,
        )


def seconds(frame: str) -> float:
    """When a frame <scene>_<seconds> was taken; as text, times of different lengths would not sort."""
    try:
        return float(frame.rpartition("_")[2])
    except ValueError as error:
        raise BadData(f"the frame {frame!r} of ARKitScenes is not called <scene>_<seconds>") from error
