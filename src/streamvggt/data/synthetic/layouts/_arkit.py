"""What the layouts of both forms of ARKitScenes share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.sources._arkit import ARKitFrames
from streamvggt.data.synthetic.layouts._clips import Clip


def write_scene(source: type[ARKitFrames], folder: Path, clip: Clip, first_second: float, **more) -> list[str]:
    """A scene's frames, ten a second, and its table; the names of the frames.

    Args:
        more: arrays that the table has besides.
    """
    frames = [f"{folder.name}_{first_second + 0.1 * frame:.3f}" for frame in range(len(clip))]
    for name, view in zip(frames, clip, strict=True):
        write_image(folder / f"vga_wide/{name}.jpg", view)
        write_png(folder / source.depth_folder / f"{name}.png", millimetres(view))
    np.savez(
        folder / source.table,
        images=np.array([f"{name}.png" for name in frames]),
        intrinsics=np.array(
            [
                [*view.depth.shape[::-1], *view.intrinsics.diagonal()[:2].tolist(), *view.intrinsics[:2, 2].tolist()]
                for view in clip
            ]
        ),
        trajectories=np.stack([world_from_cam(view) for view in clip]),
        **more,
    )
    return frames
