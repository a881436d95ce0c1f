"""Find the scenes in a folder, their layouts and their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamvggt.data.decode import DataError
from streamvggt.data.own import nerfstudio, tum
from streamvggt.data.own.colmap import model_folder, read_colmap
from streamvggt.data.own.frame import VIDEOS, Frame
from streamvggt.data.own.nerfstudio import read_transforms
from streamvggt.data.own.tum import read_tum
from streamvggt.data.own.unlabeled import images_in, read_images, read_video

LABELS = ("cameras", "depth")
EXPECTED = "transforms.json, a COLMAP model in sparse/0, rgb.txt, images or videos"


@dataclass(frozen=True)
class Layout:
    """How a scene is stored.

    Attributes:
        name: For messages.
        matches: True for the path of such a scene.
        read: Read its frames, given the scene units per step of 16-bit depth or None for the default of the layout.
    """

    name: str
    matches: Callable[[Path], object]
    read: Callable[[Path, float | None], list[Frame]]


LAYOUTS = (
    Layout("transforms.json", lambda path: (path / nerfstudio.FILE).is_file(), read_transforms),
    Layout("COLMAP", model_folder, read_colmap),
    Layout("TUM RGB-D", lambda path: (path / tum.IMAGES).is_file(), read_tum),
    Layout("images", lambda path: path.is_dir() and images_in(path), lambda path, _: read_images(path)),
    Layout("video", lambda path: is_video(path), lambda path, _: read_video(path)),
)
"""The first that matches counts."""


def scenes_under(root: Path) -> dict[str, Path]:
    """Return the paths of the scenes by name: `root` itself, or scenes in it by their relative paths.

    A scene contains no other scenes, except for videos beside the images of a folder.

    Raises:
        FileNotFoundError: If `root` does not exist.
        DataError: If there is no scene.
    """
    if not root.exists():
        raise FileNotFoundError(f"{root}: expected a scene or a folder of scenes, got nothing. Check the path.")
    found = list(_search(root))
    if not found:
        raise DataError(f"{root}: expected {EXPECTED}, got none of them. See docs/own-data.md.")
    return {root.name if path == root else path.relative_to(root).as_posix(): path for path in found}


def find_layout(path: Path) -> Layout | None:
    """Return the layout of a scene, or None if `path` is not a scene."""
    return next((layout for layout in LAYOUTS if layout.matches(path)), None)


def read_scene(path: Path, depth_unit: float | None = None) -> tuple[Frame, ...]:
    """Read the frames of a scene in temporal order, or in natural order of their names.

    Raises:
        DataError: If `path` is not a scene, a file contradicts the layout, or two frames have one name.
    """
    layout = find_layout(path)
    if layout is None:
        raise DataError(f"{path}: expected {EXPECTED}, got none of them. See docs/own-data.md.")
    frames = tuple(layout.read(path, depth_unit))
    twice = [name for name, count in Counter(frame.name for frame in frames).items() if count > 1]
    if twice:
        raise DataError(f"{path}: expected every frame once, got {twice[0]} several times. Remove the others.")
    return frames


def get_labels(frames: tuple[Frame, ...]) -> tuple[str, ...]:
    """Return the `LABELS` that every frame has. Depth without cameras does not count."""
    has_cameras = all(frame.world_from_cam is not None for frame in frames)
    has_depth = has_cameras and all(frame.depth is not None for frame in frames)
    return tuple(label for label, is_there in zip(LABELS, (has_cameras, has_depth), strict=True) if is_there)


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS and path.is_file()


def _search(path: Path) -> Iterator[Path]:
    layout = find_layout(path)
    if layout is not None:
        yield path
    if path.is_dir() and (layout is None or layout.name == "images"):
        for child in sorted(path.iterdir()):
            if not child.name.startswith(".") and (is_video(child) or (layout is None and child.is_dir())):
                yield from _search(child)
