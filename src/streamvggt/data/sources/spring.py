"""Spring (Mehl et al., arXiv 2303.01943): an animated film, rendered with depth.

<sequence>/rgb/%04d.png
           depth/%04d.npy     float32, metres; 0 or not finite where unknown
           cam/%04d.npz       intrinsics (3, 3), pose (4, 4) world-from-camera
"""

from __future__ import annotations

from streamvggt.data.decode import read_colour, read_npy, read_npz
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.view import View


class Spring(Source):
    """Every folder with pictures is a scene."""

    name = "Spring"
    folder = "spring"
    is_metric = True
    selection = Clips(max_interval=16, video_prob=1.0, fix_prob=1.0)

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        return {scene: listing.files(self.root / scene / "rgb", ".png") for scene in listing.folders(self.root)}

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"rgb/{frame}.png"
        camera = read_npz(folder / f"cam/{frame}.npz", "intrinsics", "pose")
        return self.view(
            path,
            image=read_colour(path),
            depth=read_npy(folder / f"depth/{frame}.npy"),
            intrinsics=camera["intrinsics"],
            world_from_cam=camera["pose"],
        )
