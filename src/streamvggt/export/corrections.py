"""Corrections of written frames after a loop closure.

    corrections.json      [{"first_frame": 0, "scale": 1.0, "rotation": [[…], …], "translation": […]}, …]

The frame files are unchanged. `ReconstructionResult` applies the corrections when it reads them. The file therefore
corrects all frames atomically, and deleting the file reverts the correction.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from streamvggt.export.frame_file import DamagedResult
from streamvggt.files import atomic_write
from streamvggt.geometry.similarity import Sim3

FILE_NAME = "corrections.json"
SHAPES = {"scale": (), "rotation": (3, 3), "translation": (3,)}


@dataclass(frozen=True)
class Corrections:
    """Similarities from the worlds of written frames to the final world.

    Attributes:
        first_frames: First frame of each similarity, ascending. The first is 0.
    """

    first_frames: Sequence[int] = ()
    worlds: Sequence[Sim3] = ()

    def at(self, position: int) -> Sim3 | None:
        """Return the similarity of the frame at a stream position, or None if the frame is not corrected."""
        return self.worlds[bisect_right(self.first_frames, position) - 1] if self.first_frames else None


def write_corrections(folder: Path, corrections: Corrections) -> None:
    entries = [
        {
            "first_frame": first_frame,
            "scale": world.scale.item(),
            "rotation": world.rotation.tolist(),
            "translation": world.translation.tolist(),
        }
        for first_frame, world in zip(corrections.first_frames, corrections.worlds, strict=True)
    ]
    with atomic_write(folder / FILE_NAME) as path:
        path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def read_corrections(folder: Path) -> Corrections:
    """Read the corrections of a result. Empty if the file does not exist.

    Raises:
        DamagedResult: If the file is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return Corrections()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        first_frames = [entry["first_frame"] for entry in entries]
        worlds = [Sim3(*(_numbers(entry[name], shape) for name, shape in SHAPES.items())) for entry in entries]
        is_rising = all(type(first) is int for first in first_frames) and first_frames == sorted({0, *first_frames})
        if first_frames and not is_rising:
            raise ValueError(f"first_frame: expected numbers of frames that rise from 0, got {first_frames}")
        if any(world.scale <= 0 for world in worlds):
            raise ValueError("scale: expected positive numbers")
        return Corrections(first_frames, worlds)
    except Exception as error:  # for example RecursionError for deeply nested JSON
        raise DamagedResult(
            f"{path} is damaged ({str(error) or type(error).__name__}). Without it, the frames have no loop "
            "corrections; run `streamvggt reconstruct` again to compute them"
        ) from error


def _numbers(values: object, shape: tuple[int, ...]) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=torch.float64)
    if tensor.shape != shape or not tensor.isfinite().all():
        raise ValueError(f"expected finite numbers {shape}, got {tuple(tensor.shape)}")
    return tensor
