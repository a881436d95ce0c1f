"""WildRGB-D (Xia et al., arXiv 2401.12592): objects in daily life that a phone with a depth sensor goes around.

selected_seqs_train|test.json                         {category: {"scenes/scene_001": [frame numbers]}}
<category>/scenes/scene_XXX/rgb/%05d.jpg
                            depth/%05d.png            uint16, millimetres
                            masks/%05d.png            uint8, the object where it is above 0.1 of 255
                            metadata/%05d.npz         camera_intrinsics, camera_pose
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamvggt.data.decode import read_colour, read_mask, read_npz, read_png16
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.sources._selected import selected_sequences
from streamvggt.data.view import View

BROKEN = "box/scenes/scene_257"  # left out by the published training, too
FOREGROUND = 0.1 * 255


class WildRGBD(Source):
    """A sequence of a category is a scene."""

    name = "WildRGB-D"
    folder = "wildrgbd"
    is_metric = True
    selection = Clips(max_interval=25, video_prob=0.5, fix_prob=0.5)
    splits = ("train", "test")
    mask_share = 0.1
    replaces_empty = True

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        scenes = selected_sequences(listing, self.root / f"selected_seqs_{self.split}.json", "{:05d}")
        scenes.pop(BROKEN, None)
        return scenes

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"rgb/{frame}.jpg"
        camera = read_npz(folder / f"metadata/{frame}.npz", "camera_intrinsics", "camera_pose")
        return self.view(
            path,
            image=read_colour(path),
            depth=read_png16(folder / f"depth/{frame}.png") / 1000,
            intrinsics=camera["camera_intrinsics"],
            world_from_cam=camera["camera_pose"],
        )

    def foreground(self, scene: str, frame: str) -> Tensor:
        return torch.from_numpy(read_mask(self.root / scene / f"masks/{frame}.png") > FOREGROUND)
