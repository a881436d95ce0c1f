"""Images or a video without any label, for distillation: the teacher network supplies every target."""

from __future__ import annotations

from pathlib import Path

import cv2

from streamvggt.data.decode import DataError
from streamvggt.data.own.frame import IMAGES, Frame
from streamvggt.image_files import depth_maps
from streamvggt.natural_order import natural_key


def images_in(folder: Path) -> list[Path]:
    """Visible image files of a folder in natural order."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not path.name.startswith(".")]
    return sorted(found, key=natural_key)


def read_images(folder: Path) -> list[Frame]:
    """The images of a folder as frames in natural order, without depth maps. Only headers are read."""
    paths = images_in(folder)
    maps = depth_maps(paths)
    return [Frame(path.name, path) for path in paths if path not in maps]


def read_video(path: Path) -> list[Frame]:
    """The frames of a video in the order of time. Only the header is read.

    Raises:
        DataError: If the file is no video.
    """
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
    if count < 1:
        raise DataError(f"{path}: expected a video, got a file without frames. Extract its frames into a folder.")
    return [Frame(f"{number:06d}", path, number) for number in range(count)]
