"""ScanNet++ (Yeshwanth et al., arXiv 2308.11417): rooms seen by a still camera and a phone; depth of a laser scan.

all_metadata.npz                        scenes
<scene>/new_scene_metadata.npz          see _scene_table.py; images are DSC##### (still camera) and frame_###### (phone)
        images/<name>.jpg
        depth/<name>.png                uint16, millimetres
"""

from __future__ import annotations

from collections.abc import Sequence

from streamvggt.data.decode import BadData, read_colour, read_png16
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips, Covisible
from streamvggt.data.source import Source
from streamvggt.data.sources._scene_table import scene_cameras, scene_frames, scene_groups
from streamvggt.data.view import View

TABLE = "new_scene_metadata.npz"
CAMERAS = {"DSC": 1168, "frame_": 1440}  # how names begin, and the height of the pictures they were made from


class ScanNetpp(Source):
    """Clips stay with one camera; groups mix both."""

    name = "ScanNet++"
    folder = "processed_scannetpp"
    is_metric = True
    selection = Covisible(
        Clips(max_interval=3, video_prob=0.8, fix_prob=0.5, block_shuffle=16),
        clip_share=0.7,
        best_first=True,
        ordered_share=0.05 / 0.3,
    )

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        scenes = listing.npz(self.root / "all_metadata.npz", "scenes")["scenes"]
        return {str(scene): sorted(scene_frames(listing, self.root / str(scene) / TABLE)) for scene in scenes}

    def runs(self, scene: str) -> list[Sequence[int]]:
        frames = self.frames(scene)
        runs = [[i for i, frame in enumerate(frames) if frame.startswith(camera)] for camera in CAMERAS]
        return [run for run in runs if run]

    def groups(self, scene: str) -> Sequence[Sequence[int]]:
        return scene_groups(self.root / scene / TABLE, tuple(self.frames(scene)))

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"images/{frame}.jpg"
        camera = scene_cameras(folder / TABLE)[frame]
        image = read_colour(path)
        intrinsics = camera.intrinsics.copy()
        intrinsics[:2, 2] -= principal_point_excess(frame, image.shape[0])
        return self.view(
            path,
            image=image,
            depth=read_png16(folder / f"depth/{frame}.png") / 1000,
            intrinsics=intrinsics,
            world_from_cam=camera.world_from_cam,
        )


def principal_point_excess(frame: str, height: int) -> float:
    """By how many pixels the stored principal point is too large.

    It was (W/2, H/2) of the original picture, in which the first pixel's centre is (0.5, 0.5), and was then scaled as
    if that centre were (0, 0): what is left is half a pixel of the original.
    """
    for camera, original_height in CAMERAS.items():
        if frame.startswith(camera):
            return 0.5 * height / original_height
    raise BadData(f"the frame {frame!r} of ScanNet++ is neither DSC##### nor frame_######")
