"""PointOdyssey (Zheng et al., arXiv 2307.15055): people and things that move, rendered.

<split>/<scene>/rgb/%05d.jpg
                depth/%05d.npy   float32, metres; 1000 where the 16 bits of the download were full
                cam/%05d.npz     intrinsics (3, 3), pose (4, 4) world-from-camera
"""

from __future__ import annotations

import numpy as np

from streamvggt.data.decode import read_colour, read_npy, read_npz
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.view import View

FAR = 1000  # metres


class PointOdyssey(Source):
    """Only scenes of `SCENES`. There is no other split: the ground truth of val and test is known to be wrong."""

    name = "PointOdyssey"
    folder = "point_odyssey"
    is_metric = True
    selection = Clips(max_interval=4, video_prob=1.0, fix_prob=1.0)

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        there = SCENES & set(listing.folders(self.root / self.split))
        return {scene: listing.files(self.root / self.split / scene / "rgb", ".jpg") for scene in sorted(there)}

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / self.split / scene
        path = folder / "rgb" / f"{frame}.jpg"
        camera = read_npz(folder / "cam" / f"{frame}.npz", "intrinsics", "pose")
        depth = read_npy(folder / "depth" / f"{frame}.npy")
        return self.view(
            path,
            image=read_colour(path),
            depth=np.where(depth < FAR, depth, 0),  # at FAR the measure is full: as far, or any farther
            intrinsics=camera["intrinsics"],
            world_from_cam=camera["pose"],
        )


SCENES = {
    f"{place}{camera}"
    for place, cameras in {
        "cnb_dlab_0215": ("_3rd", "_ego1"),
        "cnb_dlab_0225": ("_3rd", "_ego1"),
        "dancing": ("",),
        "dancingroom0_3rd": ("",),
        "footlab": ("_3rd", "_ego1", "_ego2"),
        "girl": ("", "_egocentric"),
        "human": ("_egocentric", "_in_scene", "_in_scene1"),
        "kg": ("", "_ego1", "_ego2"),
        "kitchen_gfloor": ("", "_ego1", "_ego2"),
        "scene_carb_h_tables": ("", "_ego1", "_ego2"),
        "scene_j716": ("_3rd", "_ego1", "_ego2"),
        "scene_recording_20210910_S05_S06_0": ("_3rd", "_ego2"),
        "scene1_0129": ("", "_ego"),
        "seminar_h52": ("_3rd", "_ego1", "_ego2"),
    }.items()
    for camera in cameras
}
"""Those that the published training uses: the others lack a background or have wrong cameras or depth."""
