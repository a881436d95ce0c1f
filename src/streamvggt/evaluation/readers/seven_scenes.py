"""7-Scenes (Shotton et al., CVPR 2013): rooms filmed with a Kinect.

7scenes/<scene>/TestSplit.txt                       lines such as "sequence3", which is seq-03
                seq-XX/frame-%06d.color.png
                       frame-%06d.depth.proj.png    uint16, millimetres, as the colour camera sees it; made by
                                                    `streamvggt data prepare seven_scenes`
                       frame-%06d.depth.png         raw; registered while reading where there is no depth.proj.png
                       frame-%06d.pose.txt          (4, 4) world-from-camera
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from streamvggt.data.decode import BadData, read_colour, read_png16
from streamvggt.data.listing import Listing
from streamvggt.data.prepare.seven_scenes import COLOUR_FOCAL, WIDTH, register
from streamvggt.data.source import Source
from streamvggt.data.view import View

NEAREST, FARTHEST = 1e-3, 10.0
"""Metres between which depth counts."""


class SevenScenes(Source):
    """A sequence is a scene: "chess/seq-03"."""

    name = "7-Scenes"
    folder = "7scenes"
    is_metric = True
    page = "docs/evaluation.md"
    splits = ("test", "train")
    page = "docs/evaluation.md"

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        split_file = f"{self.split.capitalize()}Split.txt"
        scenes = {}
        for room in listing.folders(self.root):
            split = listing.file(self.root / room / split_file)
            if not split.exists():
                continue
            for number in re.findall(r"\d+", split.read_text(encoding="utf-8")):
                scene = f"{room}/seq-{int(number):02d}"
                if not listing.exists(self.root / scene):
                    raise BadData(f"{split} lists sequence {number}, but there is no folder {self.root / scene}")
                scenes[scene] = listing.files(self.root / scene, ".color.png")
        return scenes

    def read(self, scene: str, frame: str) -> View:
        path = self.root / scene / f"{frame}.color.png"
        depth = self._millimetres(path, frame) / 1000
        height, width = depth.shape
        scale = width / WIDTH
        return self.view(
            path,
            image=resized(read_colour(path), (width, height)),
            depth=np.where((depth >= NEAREST) & (depth <= FARTHEST), depth, 0),
            intrinsics=pinhole(COLOUR_FOCAL * scale, width, height),
            world_from_cam=read_matrix(path.with_name(f"{frame}.pose.txt")),
        )

    def _millimetres(self, path: Path, frame: str) -> np.ndarray:
        projected, raw = (path.with_name(f"{frame}{suffix}") for suffix in (".depth.proj.png", ".depth.png"))
        if projected.exists() or not raw.exists():
            depth = read_png16(projected)
            return np.where(depth == 65535, 0, depth)
        return register(read_png16(raw))


def pinhole(focal: float, width: int, height: int) -> np.ndarray:
    """Square pixels, principal point (W/2, H/2). (3, 3)"""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Colours at the depth's width and height, as published: bilinear. (H, W, 3) uint8"""
    return image if image.shape[1::-1] == size else cv2.resize(image, size)


def read_matrix(path: Path) -> np.ndarray:
    """A 4×4 matrix as text.

    Raises:
        BadData: it is none.
    """
    try:
        return np.loadtxt(path).reshape(4, 4)
    except ValueError as error:
        raise BadData(f"{path}: sixteen numbers were expected ({error})") from error
