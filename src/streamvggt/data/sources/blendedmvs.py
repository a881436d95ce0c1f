"""BlendedMVS (Yao et al., arXiv 1911.10127): photographs of places and things, and the meshes made of them, rendered.

new_overlap.h5              <scene>/basenames (N,), indices (2, M), values (M,): how much image i shares with image j
<scene>/<basename>.jpg
                   .exr     float32, the scene's unit; 0 or NaN where there is no mesh
                   .npz     intrinsics (3, 3), R_cam2world (3, 3), t_cam2world (3,)
"""

from __future__ import annotations

import numpy as np

from streamvggt.data.decode import open_hdf5, read_colour, read_exr, read_npz, strings
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import GraphWalk
from streamvggt.data.source import Source
from streamvggt.data.view import View

OVERLAP = "new_overlap.h5"


class BlendedMVS(Source):
    """The scenes of the overlap file whose folders are there, and of them the images that are there."""

    name = "BlendedMVS"
    folder = "processed_blendedmvs"
    is_metric = False
    selection = GraphWalk(min_overlap=0.2)

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        if not listing.exists(self.root / OVERLAP):
            raise FileNotFoundError(
                f"BlendedMVS: {self.root / OVERLAP} is missing. It says which images overlap; docs/data.md says where "
                "to get it, or how to make one"
            )
        scenes = {}
        with open_hdf5(self.root / OVERLAP) as file:
            for scene in sorted(set(file) & set(listing.folders(self.root))):
                there = set(listing.files(self.root / scene, ".jpg"))
                scenes[scene] = [name for name in strings(file[scene]["basenames"]) if name in there]
        return scenes

    def read(self, scene: str, frame: str) -> View:
        stem = self.root / scene / frame
        path = stem.with_suffix(".jpg")
        camera = read_npz(stem.with_suffix(".npz"), "intrinsics", "R_cam2world", "t_cam2world")
        return self.view(
            path,
            image=read_colour(path),
            depth=read_exr(stem.with_suffix(".exr")),
            intrinsics=camera["intrinsics"],
            world_from_cam=np.column_stack([camera["R_cam2world"], camera["t_cam2world"]]),
        )

    def overlap(self, scene: str) -> tuple[np.ndarray, np.ndarray]:
        position = {name: number for number, name in enumerate(self.frames(scene))}
        with open_hdf5(self.root / OVERLAP) as file:
            names = strings(file[scene]["basenames"])
            pairs, values = file[scene]["indices"][()], file[scene]["values"][()]
        pairs = np.array([position.get(name, -1) for name in names])[pairs]  # (2, M)
        there = (pairs >= 0).all(0)
        return pairs[:, there], values[there]
