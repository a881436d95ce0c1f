"""Waymo Open Dataset, perception (Sun et al., arXiv 1912.04838): drives through towns.

invalid_files.h5                  <segment>/invalid_pairs: "<camera>_<frame %05d>" of frames not to use
<segment>/<frame %05d>_<camera>.jpg
                                .exr   float32, metres; 0 but where laser points are
                                .npz   intrinsics (3, 3), cam2world (4, 4)
"""

from __future__ import annotations

from streamvggt.data.decode import open_hdf5, read_colour, read_exr, read_npz, strings
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.view import View

CAMERAS = {
    1: Clips(max_interval=8, video_prob=0.9, fix_prob=0.9, block_shuffle=16),  # front
    2: Clips(max_interval=8, video_prob=0.9, fix_prob=0.9, block_shuffle=16),  # front left
    3: Clips(max_interval=8, video_prob=0.9, fix_prob=0.9, block_shuffle=16),  # front right
    4: Clips(max_interval=4, video_prob=0.9, fix_prob=0.9, block_shuffle=16),  # left: what it sees passes fast
}
"""The cameras in use. The fifth looks to the right; the published training leaves it out."""
INVALID = "invalid_files.h5"


class Waymo(Source):
    """Each camera of a segment is a scene: "<segment>/<camera>"."""

    name = "Waymo"
    folder = "waymo"
    is_metric = True
    selection = CAMERAS[1]

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        if not listing.exists(self.root / INVALID):
            raise FileNotFoundError(
                f"Waymo: {self.root / INVALID} is missing. It says which frames not to use; docs/data.md says where "
                "to get it"
            )
        scenes = {}
        with open_hdf5(self.root / INVALID) as file:
            for segment in listing.folders(self.root):
                if segment == "tmp":  # left behind by the published preparation
                    continue
                invalid = set(strings(file[segment]["invalid_pairs"])) if segment in file else set()
                names = [name.rpartition("_") for name in listing.files(self.root / segment, ".jpg")]
                for camera in map(str, CAMERAS):
                    frames = [frame for frame, _, of in names if of == camera and f"{camera}_{frame}" not in invalid]
                    if frames:
                        scenes[f"{segment}/{camera}"] = frames
        return scenes

    def selection_of(self, scene: str) -> Clips:
        return CAMERAS[int(scene.rpartition("/")[2])]

    def read(self, scene: str, frame: str) -> View:
        segment, _, camera = scene.rpartition("/")
        stem = self.root / segment / f"{frame}_{camera}"
        path = stem.with_suffix(".jpg")
        cameras = read_npz(stem.with_suffix(".npz"), "intrinsics", "cam2world")
        return self.view(
            path,
            image=read_colour(path),
            depth=read_exr(stem.with_suffix(".exr")),
            intrinsics=cameras["intrinsics"],
            world_from_cam=cameras["cam2world"],
        )
