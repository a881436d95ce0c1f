"""ScanNet (Dai et al., arXiv 1702.04405): rooms seen by a tablet with a depth sensor.

scans_train|scans_test/<scene>/new_scene_metadata.npz    images, (N,) names
                               color/%05d.jpg
                               depth/%05d.png            uint16, millimetres
                               cam/%05d.npz              intrinsics, pose
"""

from __future__ import annotations

from pathlib import Path

from streamvggt.data.decode import read_colour, read_npz, read_png16
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.sources._scene_table import scene_frames
from streamvggt.data.view import View

TABLE = "new_scene_metadata.npz"


class ScanNet(Source):
    """A recording of a room is a scene."""

    name = "ScanNet"
    folder = "processed_scannet"
    is_metric = True
    selection = Clips(max_interval=30, video_prob=0.6, fix_prob=0.6, block_shuffle=16)
    splits = ("train", "test")

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        scenes = [scene for scene in listing.folders(self.split_folder) if scene.startswith("scene")]
        return {scene: sorted(scene_frames(listing, self.split_folder / scene / TABLE)) for scene in scenes}

    def read(self, scene: str, frame: str) -> View:
        folder = self.split_folder / scene
        path = folder / f"color/{frame}.jpg"
        camera = read_npz(folder / f"cam/{frame}.npz", "intrinsics", "pose")
        return self.view(
            path,
            image=read_colour(path),
            depth=read_png16(folder / f"depth/{frame}.png") / 1000,
            intrinsics=camera["intrinsics"],
            world_from_cam=camera["pose"],
        )

    @property
    def split_folder(self) -> Path:
        return self.root / f"scans_{self.split}"
