"""Bonn RGB-D Dynamic, a test set. RAW, as rgbd_bonn_dataset.zip unpacks (with or without this first folder):

rgbd_bonn_dataset/rgbd_bonn_<sequence>/rgb/*.png, depth/*.png, groundtruth.txt

The 110 images, depth maps and poses from the 31st on are taken, as published: each by its place in its own sorted
list. Times are not compared, and depth runs a little ahead of the images where some were dropped.
"""

from __future__ import annotations

from pathlib import Path

from streamvggt.data.prepare._runner import Skip
from streamvggt.files import link_or_copy

FOLDER = "bonn/rgbd_bonn_dataset"
TAKEN = slice(30, 140)


def scenes(raw: Path) -> list[str]:
    return [folder.name for folder in sorted(_dataset(raw).glob("rgbd_bonn_*")) if (folder / "rgb").is_dir()]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    source = _dataset(raw) / scene
    taken = {kind: sorted((source / kind).glob("*.png"))[TAKEN] for kind in ("rgb", "depth")}
    numbers = {kind: len(paths) for kind, paths in taken.items()}
    if not min(numbers.values()):
        raise Skip(f"it has no frames after the first {TAKEN.start}")
    if numbers["rgb"] != numbers["depth"]:
        raise ValueError(f"{source}: {numbers['rgb']} images but {numbers['depth']} depth maps: unpack it again")
    for kind, paths in taken.items():
        (folder / f"{kind}_110").mkdir()
        for path in paths:
            link_or_copy(path, folder / f"{kind}_110" / path.name)
    poses = [
        line
        for line in (source / "groundtruth.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    (folder / "groundtruth_110.txt").write_text("\n".join(poses[TAKEN]) + "\n", encoding="utf-8")


def _dataset(raw: Path) -> Path:
    inner = raw / "rgbd_bonn_dataset"
    return inner if inner.is_dir() else raw
