"""CO3Dv2 (Reizenstein et al., arXiv 2109.00512): objects that a camera goes around.

selected_seqs_train|test.json                               {category: {sequence: [frame numbers]}}
<category>/<sequence>/images/frame%06d.jpg
                      images/frame%06d.npz                  camera_intrinsics, camera_pose, maximum_depth
                      depths/frame%06d.jpg.geometric.png    uint16, 65535 is maximum_depth
                      masks/frame%06d.png                   uint8, the object where it is above 0.1 of 255
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.decode import read_colour, read_mask, read_npz, read_png16
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.sources._selected import selected_sequences
from streamvggt.data.view import View

FULL_SCALE = 65535
FOREGROUND = 0.1 * 255


class CO3D(Source):
    """A sequence of a category is a scene."""

    name = "CO3Dv2"
    folder = "processed_co3d"
    is_metric = False
    selection = Clips(max_interval=25, video_prob=0.5, fix_prob=0.5)
    splits = ("train", "test")
    mask_share = 0.1
    replaces_empty = True

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        return selected_sequences(listing, self.root / f"selected_seqs_{self.split}.json", "frame{:06d}")

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"images/{frame}.jpg"
        camera = read_npz(folder / f"images/{frame}.npz", "camera_intrinsics", "camera_pose", "maximum_depth")
        # A maximum that is not a number leaves no depth.
        unit = np.nan_to_num(float(camera["maximum_depth"]), posinf=0) / FULL_SCALE
        return self.view(
            path,
            image=read_colour(path),
            depth=read_png16(folder / f"depths/{frame}.jpg.geometric.png") * unit,
            intrinsics=camera["camera_intrinsics"],
            world_from_cam=camera["camera_pose"],
        )

    def foreground(self, scene: str, frame: str) -> Tensor:
        return torch.from_numpy(read_mask(self.root / scene / f"masks/{frame}.png") > FOREGROUND)
