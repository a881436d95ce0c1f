"""OmniObject3D (Wu et al., arXiv 2301.07525): scanned things, rendered before white from all around.

scale.json                  {object: units of its renderings per millimetre}
<object>/rgb/r_%d.png
         depth/r_%d.npy     float32, units of its renderings; 0 beside the thing
         cam/r_%d.npz       intrinsics (3, 3), pose (4, 4) world-from-camera, units of its renderings
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData, read_colour, read_json, read_npy, read_npz
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Clips
from streamvggt.data.source import Source
from streamvggt.data.view import View

NOTHING = 65504  # the largest number of 16 bits, which renderers write where there is nothing


class OmniObject3D(Source):
    """Brought to metres by `scale.json`, but as published not trained on as metric."""

    name = "OmniObject3D"
    folder = "omniobject3d"
    is_metric = False
    selection = Clips(max_interval=100, video_prob=0.0)

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        if not listing.exists(self.scale_file):
            raise FileNotFoundError(
                f"OmniObject3D: {self.scale_file} is missing. It holds the scale of every object and is no part of "
                "the download; docs/data.md says where to get it"
            )
        scenes = {thing: listing.files(self.root / thing / "rgb", ".png") for thing in listing.folders(self.root)}
        return {thing: sorted(frames, key=first_number) for thing, frames in scenes.items()}

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / "rgb" / f"{frame}.png"
        camera = read_npz(folder / "cam" / f"{frame}.npz", "intrinsics", "pose")
        depth = read_npy(folder / "depth" / f"{frame}.npy")
        metres = 1 / (1000 * self.scale(scene))
        pose = camera["pose"].astype(float)
        pose[:3, 3] *= metres
        return self.view(
            path,
            image=read_colour(path),
            depth=np.where(depth < NOTHING, depth, 0) * metres,
            intrinsics=camera["intrinsics"],
            world_from_cam=pose,
        )

    def scale(self, thing: str) -> float:
        """
        Raises:
            BadData: the scale is not known.
        """
        scale = self._scales.get(thing)
        if not isinstance(scale, float | int) or not scale > 0:
            raise BadData(f"{self.scale_file}: a positive scale of {thing!r} was expected, it is {scale}")
        return scale

    @property
    def scale_file(self) -> Path:
        return self.root / "scale.json"

    @cached_property
    def _scales(self) -> dict[str, float]:
        return read_json(self.scale_file)


def first_number(name: str) -> tuple[int, str]:
    """To sort r_2 before r_10."""
    number = re.search(r"\d+", name)
    return int(number.group()) if number else -1, name
