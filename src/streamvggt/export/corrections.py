"""Where a result's frames were moved to after they had been written, because a loop was closed.

    corrections.json      [{"first_frame": 0, "scale": 1.0, "rotation": [[…], …], "translation": […]}, …]

The frame files stay as they were answered; whoever reads them through `Result` gets them corrected. So the file is what
makes a correction happen, at once for all frames, and taking it away undoes it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from streamvggt.files import atomic_write
from streamvggt.geometry.similarity import Similarity

NAME = "corrections.json"


@dataclass(frozen=True)
class Corrections:
    """Similarities from the worlds of written frames to the one that holds at the end.

    first_frames: from which frame on each holds, rising; the first is 0.
    """

    first_frames: Sequence[int] = ()
    worlds: Sequence[Similarity] = ()

    def of(self, position: int) -> Similarity | None:
        """How the frame at this position of the stream is moved; None: not at all."""
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
    with atomic_write(folder / NAME) as path:
        path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def read_corrections(folder: Path) -> Corrections:
    """Those of a result; none where there is no such file.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return Corrections()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        worlds = [
            Similarity(
                *(torch.tensor(entry[name], dtype=torch.float64) for name in ("scale", "rotation", "translation"))
            )
            for entry in entries
        ]
        return Corrections([int(entry["first_frame"]) for entry in entries], worlds)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Without it the frames are where they were before loops were closed; run "
            "`streamvggt reconstruct` again to close them"
        ) from error
