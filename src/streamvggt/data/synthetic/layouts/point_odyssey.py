"""PointOdyssey's layout; its source says which files there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.sources.point_odyssey import FAR, SCENES, PointOdyssey
from streamvggt.data.synthetic.layouts._clips import Clip, Written

OUTDOORS = True
UNLISTED = "ani10_new_f"


def write(out: Path, clips: Sequence[Clip]) -> list[Written]:
    """The sky is a kilometre away, as in the published preparation. One more scene is in no list: the first again."""
    written = []
    for scene, clip in [*zip(sorted(SCENES), clips, strict=False), (UNLISTED, clips[0])]:
        folder = out / PointOdyssey.folder / "train" / scene
        frames = [f"{frame:05d}" for frame in range(len(clip))]
        for part in ("depth", "cam"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for frame, view in zip(frames, clip, strict=True):
            write_image(folder / "rgb" / f"{frame}.jpg", view)
            np.save(folder / "depth" / f"{frame}.npy", np.where(view.sky, np.float32(FAR), depth_array(view)))
            np.savez(
                folder / "cam" / f"{frame}.npz",
                intrinsics=view.intrinsics.float().numpy(),
                pose=world_from_cam(view).astype(np.float32),
            )
        written.append(Written(scene, frames))
    return written[:-1]
