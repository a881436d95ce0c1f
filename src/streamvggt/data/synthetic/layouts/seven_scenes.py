"""7-Scenes' layout, a test set; `evaluation/readers/seven_scenes.py` says which files there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.synthetic.layouts._clips import Clip, Written

FOV = 2 * math.atan(320 / 525)
ROOMS = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """A room for each clip, all in the test split; the depth is that of the colour camera."""
    written = []
    for number, clip in enumerate(clips):
        scene = f"{ROOMS[number % len(ROOMS)]}/seq-{number + 1:02d}"
        folder = out / "7scenes" / scene
        frames = [f"frame-{frame:06d}" for frame in range(len(clip))]
        for frame, view in zip(frames, clip, strict=True):
            write_image(folder / f"{frame}.color.png", view)
            write_png(folder / f"{frame}.depth.proj.png", millimetres(view))
            np.savetxt(folder / f"{frame}.pose.txt", world_from_cam(view), fmt="%.9f", delimiter="\t")
        written.append(Written(scene, frames))
    for room in ROOMS[: len(clips)]:
        numbers = range(ROOMS.index(room) + 1, len(clips) + 1, len(ROOMS))
        lines = "".join(f"sequence{number}\n" for number in numbers)
        (out / "7scenes" / room / "TestSplit.txt").write_text(lines, encoding="utf-8")
        (out / "7scenes" / room / "TrainSplit.txt").write_text("", encoding="utf-8")
    return written
