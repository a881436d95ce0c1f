"""Hypersim (Roberts et al., arXiv 2011.02523): rendered rooms.

ai_VVV_NNN/cam_XX/%06d_rgb.png
                  %06d_depth.npy   float32, metres along the optical axis; NaN where there is nothing
                  %06d_cam.npz     intrinsics (3, 3), pose (4, 4) world-from-camera
"""

from __future__ import annotations

from streamvggt.data.decode import read_colour, read_npy, read_npz
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.view import View

RGB = "_rgb.png"


class Hypersim(Source):
    """Each camera's way through a scene is a scene. Empty folders stand for what was left out on purpose."""

    name = "Hypersim"
    folder = "hypersim"
    is_metric = True
    selection = Clips(max_interval=4, video_prob=0.5, fix_prob=0.5, block_shuffle=16)

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        scenes = {}
        for scene in listing.folders(self.root):
            for camera in listing.folders(self.root / scene):
                if names := listing.files(self.root / scene / camera, ""):
                    scenes[f"{scene}/{camera}"] = [name[: -len(RGB)] for name in names if name.endswith(RGB)]
        return scenes

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"{frame}{RGB}"
        camera = read_npz(folder / f"{frame}_cam.npz", "intrinsics", "pose")
        return self.view(
            path,
            image=read_colour(path),
            depth=read_npy(folder / f"{frame}_depth.npy"),
            intrinsics=camera["intrinsics"],
            world_from_cam=camera["pose"],
        )
