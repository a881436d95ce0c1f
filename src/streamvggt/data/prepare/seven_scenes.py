"""7-Scenes' depth as the colour camera sees it, for the evaluation of reconstructions.

RAW is the download, unpacked (each scene's seq-XX.zip, too):

RAW/<scene>/TestSplit.txt, TrainSplit.txt
            seq-XX/frame-%06d.color.png, .depth.png, .pose.txt

ROOT/7scenes/<scene>/…    the same sequences, with frame-%06d.depth.proj.png in place of depth.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.data.decode import read_png16
from streamvggt.data.encode import write_png
from streamvggt.data.prepare._runner import Skip
from streamvggt.files import link_or_copy

FOLDER = "7scenes"
SPLITS = ("TestSplit.txt", "TrainSplit.txt")

WIDTH = 640
"""Of the pictures that the numbers below are for."""
DEPTH_FOCAL, COLOUR_FOCAL = 585.0, 525.0
"""Pixels; the principal point is the middle of the picture."""
COLOUR_FROM_DEPTH = np.array(
    [
        [0.99996518012567637, 0.0026765126468950343, -0.0079041012313000904, -0.025558943178152542],
        [-0.0027409311281316700, 0.99996302803027592, -0.0081504520778013286, 0.00010109636268061706],
        [0.0078819942130445332, 0.0081718328771890631, 0.99993554558014031, 0.0020318321729487039],
    ]
)
"""Metres."""
FARTHEST = 100.0
"""Metres; what is farther was not measured (the camera writes 65535)."""


def scenes(raw: Path) -> list[str]:
    """Sequences."""
    return sorted(str(path.relative_to(raw)) for path in raw.glob("*/seq-*") if path.is_dir())


def prepare(raw: Path, scene: str, folder: Path) -> None:
    """
    Raises:
        Skip: there are no raw depth images.
    """
    depths = sorted((raw / scene).glob("frame-*.depth.png"))
    if not depths:
        raise Skip("it has no frame-*.depth.png; is its zip file unpacked?")
    for path in depths:
        frame = path.name.removesuffix(".depth.png")
        for suffix in (".color.png", ".pose.txt"):
            link_or_copy(path.with_name(frame + suffix), folder / (frame + suffix))
        write_png(folder / f"{frame}.depth.proj.png", register(read_png16(path)))


def finish(raw: Path, out: Path) -> None:
    for path in [path for name in SPLITS for path in raw.glob(f"*/{name}")]:
        target = out / path.relative_to(raw)
        target.unlink(missing_ok=True)
        link_or_copy(path, target)


def register(depth: np.ndarray) -> np.ndarray:
    """Depth of the Kinect's own camera as its colour camera sees it.

    Each pixel's point is moved into the colour camera and falls onto the nearest pixel; the nearest point counts, where
    none falls is a hole.

    Args:
        depth: millimetres. (H, W) uint16

    Returns:
        millimetres, 0 unknown. (H, W) uint16
    """
    height, width = depth.shape
    middle = np.array([width, height]) / 2
    metres = depth / 1000.0
    known = (metres > 0) & (metres < FARTHEST) & (depth < 65535)
    y, x = np.nonzero(known)
    z = metres[known]
    flat = (np.stack([x, y], -1) + 0.5 - middle) / (DEPTH_FOCAL * width / WIDTH)
    points = np.column_stack([flat * z[:, None], z]) @ COLOUR_FROM_DEPTH[:, :3].T + COLOUR_FROM_DEPTH[:, 3]
    points = points[points[:, 2] > 0]
    x, y = np.rint(points[:, :2] / points[:, 2:] * (COLOUR_FOCAL * width / WIDTH) + middle).astype(int).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    seen = np.full((height, width), np.inf)
    np.minimum.at(seen, (y[inside], x[inside]), points[inside, 2])
    return np.where(np.isfinite(seen), np.rint(seen * 1000), 0).astype(np.uint16)
