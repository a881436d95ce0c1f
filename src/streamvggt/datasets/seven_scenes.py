"""7-Scenes (Shotton et al., CVPR 2013): rooms filmed with a Kinect. For evaluation of reconstructions.

ROOT/7scenes/<scene>/TestSplit.txt, TrainSplit.txt          lines such as "sequence3", which is seq-03
                     seq-XX/frame-%06d.color.png
                            frame-%06d.depth.proj.png       uint16, millimeters, as the color camera sees it
                            frame-%06d.depth.png            raw; registered on the fly if there is no depth.proj.png
                            frame-%06d.pose.txt             (4, 4) world-from-camera

RAW is the download, unpacked (also the seq-XX.zip of each scene): the same files, with raw depth only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError, read_image, read_lines, read_png16, read_table
from streamvggt.data.encode import millimeters, world_from_cam, write_image, write_png
from streamvggt.data.file_index import FileIndex
from streamvggt.data.view import View
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._prepare import SkipScene
from streamvggt.files import link_or_copy

FOLDER = "7scenes"
IMAGE, DEPTH, RAW_DEPTH, POSE = (f"{{}}.{kind}" for kind in ("color.png", "depth.proj.png", "depth.png", "pose.txt"))
ROOMS = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
SPLITS = {"test": "TestSplit.txt", "train": "TrainSplit.txt"}
NEAREST, FARTHEST = 1e-3, 10.0
"""Range of valid depth in meters."""

WIDTH = 640
"""Image size of the intrinsics below."""
DEPTH_FOCAL, COLOR_FOCAL = 585.0, 525.0
"""Focal length in pixels. The principal point is the image center."""
COLOR_FROM_DEPTH = np.array(
    [
        [0.99996518012567637, 0.0026765126468950343, -0.0079041012313000904, -0.025558943178152542],
        [-0.0027409311281316700, 0.99996302803027592, -0.0081504520778013286, 0.00010109636268061706],
        [0.0078819942130445332, 0.0081718328771890631, 0.99993554558014031, 0.0020318321729487039],
    ]
)
"""Meters."""
UNMEASURED = 65535
MAX_MEASURED = 100.0  # meters
FOV = 2 * math.atan(WIDTH / 2 / COLOR_FOCAL)


class SevenScenes(DatasetReader):
    """7-Scenes. A scene is a sequence: "chess/seq-03"."""

    name, folder, is_metric = "7-Scenes", FOLDER, True
    docs_page = "docs/evaluation.md"
    splits = tuple(SPLITS)

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        scenes = {}
        for room in listing.folders(self.root):
            split = listing.file(self.root / room / SPLITS[self.split])
            if not split.exists():
                continue
            for number in re.findall(r"\d+", " ".join(read_lines(split))):
                scene = f"{room}/seq-{int(number):02d}"
                if not listing.exists(self.root / scene):
                    raise DataError(f"{split} lists sequence {number}, but no folder at {self.root / scene}")
                scenes[scene] = listing.files(self.root / scene, IMAGE.format(""))
        return scenes

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / IMAGE.format(frame)
        depth = read_depth(folder, frame)
        height, width = depth.shape
        return self.view(
            path,
            image=resized(read_image(path), (width, height)),
            depth=np.where((depth >= NEAREST) & (depth <= FARTHEST), depth, 0),
            intrinsics=pinhole(COLOR_FOCAL * width / WIDTH, width, height),
            world_from_cam=read_table(folder / POSE.format(frame), 4, rows=4),
        )


def read_depth(folder: Path, frame: str) -> np.ndarray:
    """Depth of the color camera in meters, 0 where unknown. (H, W)"""
    projected, raw = folder / DEPTH.format(frame), folder / RAW_DEPTH.format(frame)
    if projected.exists() or not raw.exists():
        depth = read_png16(projected)
        return np.where(depth == UNMEASURED, 0, depth) / 1000
    return register(read_png16(raw)) / 1000


def pinhole(focal: float, width: int, height: int) -> np.ndarray:
    """Return intrinsics with square pixels and principal point (W/2, H/2). (3, 3)"""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize colors bilinearly to the width and height of the depth, as published. (H, W, 3) uint8"""
    return image if image.shape[1::-1] == size else cv2.resize(image, size)


def raw_scenes(raw: Path) -> list[str]:
    """Return the sequences."""
    return sorted(str(path.relative_to(raw)) for path in raw.glob("*/seq-*") if path.is_dir())


def prepare(raw: Path, scene: str, folder: Path) -> None:
    depths = sorted((raw / scene).glob(RAW_DEPTH.format("frame-*")))
    if not depths:
        raise SkipScene("it has no frame-*.depth.png; is its zip file unpacked?")
    for path in depths:
        frame = path.name.removesuffix(RAW_DEPTH.format(""))
        for name in (IMAGE.format(frame), POSE.format(frame)):
            link_or_copy(path.with_name(name), folder / name)
        write_png(folder / DEPTH.format(frame), register(read_png16(path)))


def finish(raw: Path, out: Path) -> None:
    for path in [path for name in SPLITS.values() for path in raw.glob(f"*/{name}")]:
        target = out / path.relative_to(raw)
        target.unlink(missing_ok=True)
        link_or_copy(path, target)


def register(depth: np.ndarray) -> np.ndarray:
    """Project the depth of the Kinect's depth camera into its color camera.

    Each point is assigned to the nearest pixel. A pixel takes its nearest point. A pixel without points is a hole.

    Args:
        depth: Millimeters. (H, W) uint16

    Returns:
        Millimeters, truncated to integers as in SimpleRecon, whose files the published evaluation reads; 0 where
        unknown. (H, W) uint16
    """
    height, width = depth.shape
    middle = np.array([width, height]) / 2
    meters = depth / 1000.0
    known = (meters > 0) & (meters < MAX_MEASURED) & (depth < UNMEASURED)
    y, x = np.nonzero(known)
    z = meters[known]
    flat = (np.stack([x, y], -1) + 0.5 - middle) / (DEPTH_FOCAL * width / WIDTH)
    points = np.column_stack([flat * z[:, None], z]) @ COLOR_FROM_DEPTH[:, :3].T + COLOR_FROM_DEPTH[:, 3]
    points = points[points[:, 2] > 0]
    x, y = np.rint(points[:, :2] / points[:, 2:] * (COLOR_FOCAL * width / WIDTH) + middle).astype(int).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    seen = np.full((height, width), np.inf)
    np.minimum.at(seen, (y[inside], x[inside]), points[inside, 2])
    return np.where(np.isfinite(seen), seen * 1000, 0).astype(np.uint16)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures: one room per clip, all in the test split, with depth of the color camera."""
    written = []
    for number, clip in enumerate(clips):
        scene = f"{ROOMS[number % len(ROOMS)]}/seq-{number + 1:02d}"
        folder = out / FOLDER / scene
        frames = [f"frame-{frame:06d}" for frame in range(len(clip))]
        for frame, view in zip(frames, clip, strict=True):
            write_image(folder / IMAGE.format(frame), view)
            write_png(folder / DEPTH.format(frame), millimeters(view))
            np.savetxt(folder / POSE.format(frame), world_from_cam(view), fmt="%.9f", delimiter="\t")
        written.append(WrittenScene(scene, frames))
    for room in ROOMS[: len(clips)]:
        numbers = range(ROOMS.index(room) + 1, len(clips) + 1, len(ROOMS))
        lines = "".join(f"sequence{number}\n" for number in numbers)
        (out / FOLDER / room / SPLITS["test"]).write_text(lines, encoding="utf-8")
        (out / FOLDER / room / SPLITS["train"]).write_text("", encoding="utf-8")
    return written
