"""Bonn RGB-D Dynamic (Palazzolo et al., IROS 2019): people and balloons in front of a depth camera. For evaluation.

ROOT/bonn/rgbd_bonn_dataset/rgbd_bonn_<sequence>/rgb_110/*.png
                                                 depth_110/*.png    uint16, 1/5000 m, 0 unknown

RAW, as rgbd_bonn_dataset.zip unpacks (with or without this first folder):
     rgbd_bonn_dataset/rgbd_bonn_<sequence>/rgb/*.png, depth/*.png, groundtruth.txt

The 110 images, depth maps and poses from the 31st on are taken, as published: each by its place in its own sorted
list. Times are not compared, and depth runs a little ahead of the images where some were dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.decode import read_lines
from streamvggt.data.encode import depth_array, write_image, write_png
from streamvggt.datasets._depth_set import DepthSet, Pair, files, pair_by_order, read_fixed_point
from streamvggt.datasets._files import fixed_point
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._prepare import SkipScene
from streamvggt.files import link_or_copy

FOLDER = "bonn/rgbd_bonn_dataset"
SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
PREFIX = "rgbd_bonn_"
STEPS_PER_METER = 5000
FRAME_RANGE = slice(30, 140)


class Bonn(DepthSet):
    """Bonn RGB-D Dynamic. Images and depth have different times and are paired by position, as published."""

    name = "Bonn"
    folders = ("bonn",)

    def list_scenes(self) -> dict[str, list[Pair]]:
        scenes = {}
        for sequence in SEQUENCES:
            folder = self.root / "rgbd_bonn_dataset" / f"{PREFIX}{sequence}"
            if folder.is_dir():
                scenes[sequence] = pair_by_order(files(folder / "rgb_110", ".png"), files(folder / "depth_110", ".png"))
        return scenes

    def read_depth(self, path: Path) -> np.ndarray:
        return read_fixed_point(path, STEPS_PER_METER)


def raw_scenes(raw: Path) -> list[str]:
    return [folder.name for folder in sorted(_dataset(raw).glob(f"{PREFIX}*")) if (folder / "rgb").is_dir()]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    source = _dataset(raw) / scene
    taken = {kind: sorted((source / kind).glob("*.png"))[FRAME_RANGE] for kind in ("rgb", "depth")}
    numbers = {kind: len(paths) for kind, paths in taken.items()}
    if not min(numbers.values()):
        raise SkipScene(f"it has no frames after the first {FRAME_RANGE.start}")
    if numbers["rgb"] != numbers["depth"]:
        raise ValueError(f"{source}: {numbers['rgb']} images but {numbers['depth']} depth maps: unpack it again")
    for kind, paths in taken.items():
        (folder / f"{kind}_110").mkdir()
        for path in paths:
            link_or_copy(path, folder / f"{kind}_110" / path.name)
    poses = read_lines(source / "groundtruth.txt")
    (folder / "groundtruth_110.txt").write_text("\n".join(poses[FRAME_RANGE]) + "\n", encoding="utf-8")


def _dataset(raw: Path) -> Path:
    inner = raw / "rgbd_bonn_dataset"
    return inner if inner.is_dir() else raw


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write at most five scenes. Images and depth have different times, as in the original."""
    written = []
    for scene, clip in zip(SEQUENCES, clips, strict=False):
        folder = out / FOLDER / f"{PREFIX}{scene}"
        times = [1548266500 + number / 30 for number in range(len(clip))]
        for time, view in zip(times, clip, strict=True):
            write_image(folder / f"rgb_110/{time:.5f}.png", view)
            write_png(folder / f"depth_110/{time + 0.01:.5f}.png", fixed_point(depth_array(view), STEPS_PER_METER))
        written.append(WrittenScene(scene, [f"{time:.5f}" for time in times]))
    return written
