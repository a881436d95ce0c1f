"""MVS-Synth (Huang et al., arXiv 1804.00650): streets of a computer game.

<sequence>/rgb/%04d.jpg       PNG files by that name
           depth/%04d.npy     float32; 0 or not finite where unknown
           cam/%04d.npz       intrinsics (3, 3), pose (4, 4) world-from-camera
"""

from __future__ import annotations

import numpy as np

from streamvggt.data.decode import read_colour, read_npy, read_npz
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.view import View

NEAR_SHARE = 98  # percent of the known pixels that are kept, the nearest
FARTHEST = 1000


class MvsSynth(Source):
    """The farthest 2 % of each frame count as unknown: there the game's depth is coarse, or that of a backdrop."""

    name = "MVS-Synth"
    folder = "mvs_synth"
    is_metric = False
    selection = Clips(max_interval=4, video_prob=1.0, fix_prob=1.0)

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        return {scene: listing.files(self.root / scene / "rgb", ".jpg") for scene in listing.folders(self.root)}

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"rgb/{frame}.jpg"
        camera = read_npz(folder / f"cam/{frame}.npz", "intrinsics", "pose")
        return self.view(
            path,
            image=read_colour(path),
            depth=without_the_farthest(read_npy(folder / f"depth/{frame}.npy")),
            intrinsics=camera["intrinsics"],
            world_from_cam=camera["pose"],
        )


def without_the_farthest(depth: np.ndarray) -> np.ndarray:
    """Depth with 0 where it is not finite or among the farthest. (H, W)"""
    depth = np.where(np.isfinite(depth), depth, 0)
    known = depth[depth > 0]
    limit = min(np.percentile(known, NEAR_SHARE), FARTHEST) if len(known) else FARTHEST
    return np.where(depth > limit, 0, depth)
