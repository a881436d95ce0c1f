"""NYU Depth v2's layout, a test set; `evaluation/readers/nyu.py` says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, write_image
from streamvggt.data.synthetic.layouts._clips import Clip, Written


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """All frames of all clips in one folder."""
    val = out / "nyu_v2" / "val"
    (val / "nyu_depths").mkdir(parents=True, exist_ok=True)
    views = [view for clip in clips for view in clip]
    frames = [f"{number + 1:05d}" for number in range(len(views))]
    for frame, view in zip(frames, views, strict=True):
        write_image(val / "nyu_images" / f"{frame}.png", view)
        np.save(val / "nyu_depths" / f"{frame}.npy", depth_array(view))
    return [Written("val", frames)]
