"""Virtual KITTI 2 (Cabon et al., arXiv 2001.10773): drives through rendered towns, in several weathers.

<Scene>/<variation>/Camera_0|Camera_1/%05d_rgb.jpg
                                      %05d_depth.png   uint16, centimetres; from 655 m on it is sky
                                      %05d_cam.npz     camera_intrinsics (3, 3), camera_pose (4, 4) world-from-camera
"""

from __future__ import annotations

from streamvggt.data.decode import read_colour, read_npz, read_png16
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.view import View

SKY = 65500  # centimetres


class VirtualKitti2(Source):
    """Each camera of each variation is a scene. Split: "train" is all but the last town, "test" the last."""

    name = "Virtual KITTI 2"
    folder = "processed_vkitti"
    is_metric = True
    selection = Clips(max_interval=5, video_prob=1.0, fix_prob=0.9)
    splits = ("all", "train", "test")

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        towns = listing.folders(self.root)
        towns = {"all": towns, "train": towns[:-1], "test": towns[-1:]}[self.split]
        scenes = [
            f"{town}/{variation}/{camera}"
            for town in towns
            for variation in listing.folders(self.root / town)
            for camera in listing.folders(self.root / town / variation)
        ]
        return {scene: listing.files(self.root / scene, "_rgb.jpg") for scene in scenes}

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"{frame}_rgb.jpg"
        camera = read_npz(folder / f"{frame}_cam.npz", "camera_intrinsics", "camera_pose")
        centimetres = read_png16(folder / f"{frame}_depth.png")
        return self.view(
            path,
            image=read_colour(path),
            depth=centimetres / 100,
            intrinsics=camera["camera_intrinsics"],
            world_from_cam=camera["camera_pose"],
            sky=centimetres >= SKY,
        )
