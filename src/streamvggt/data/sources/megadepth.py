"""MegaDepth (Li and Snavely, arXiv 1804.00607): strangers' photographs of sights, with depth from stereo.

megadepth_sets_64.npz        scenes (A,) "0001 0"; images (B,) "x.jpg"; sets (M, 65): scene, then 64 images of it
<scene>/<sub-scene>/x.jpg.jpg
                    x.jpg.exr   float32, the model's unit; not positive where unknown
                    x.jpg.npz   intrinsics (3, 3), cam2world (4, 4)
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from streamvggt.data.decode import BadData, read_colour, read_exr, read_npz
from streamvggt.data.listing import Listing
from streamvggt.data.sampling import Sets
from streamvggt.data.source import Source
from streamvggt.data.view import View

SETS = "megadepth_sets_64.npz"
HELD_OUT = ("0015", "0022")


class MegaDepth(Source):
    """The scenes of the list of sets whose folders are there. Frames have no order of time."""

    name = "MegaDepth"
    folder = "processed_megadepth"
    is_metric = False
    selection = Sets()
    splits = ("train", "val", "all")

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        if not listing.exists(self.root / SETS):
            raise FileNotFoundError(
                f"MegaDepth: {self.root / SETS} is missing. It says which photographs go together; docs/data.md says "
                "where to get it, or how to make one"
            )
        scenes = {}
        for scene, (images, _) in self._sets.items():
            held_out = scene.startswith(HELD_OUT)
            wanted = {"train": not held_out, "val": held_out, "all": True}[self.split]
            if wanted and listing.exists(self.root / scene):
                scenes[scene] = [str(name) for name in self._table["images"][images]]
        return scenes

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"{frame}.jpg"
        camera = read_npz(folder / f"{frame}.npz", "intrinsics", "cam2world")
        return self.view(
            path,
            image=read_colour(path),
            depth=read_exr(folder / f"{frame}.exr"),
            intrinsics=camera["intrinsics"],
            world_from_cam=camera["cam2world"],
        )

    def groups(self, scene: str) -> np.ndarray:
        """The sets; in some of them images come more than once. (M, 64)"""
        return self._sets[scene][1]

    @cached_property
    def _sets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each scene the numbers of its images, (N,), and its sets by positions among these, (M, 64)."""
        scene_of, members = np.split(self._table["sets"], [1], axis=1)
        sets = {}
        for number in np.unique(scene_of):
            own = members[scene_of[:, 0] == number]
            images, positions = np.unique(own, return_inverse=True)
            sets[str(self._table["scenes"][number]).replace(" ", "/")] = images, positions.reshape(own.shape)
        return sets

    @cached_property
    def _table(self) -> dict[str, np.ndarray]:
        table = read_npz(self.root / SETS, "scenes", "images", "sets")
        sets = table["sets"]
        if sets.ndim != 2 or sets.shape[1] < 2:
            raise BadData(f"{self.root / SETS}: sets of shape (M, 65) were expected, they are {sets.shape}")
        listed = (sets[:, 0] < len(table["scenes"])) & (sets[:, 1:] < len(table["images"])).all(1) & (sets >= 0).all(1)
        if not listed.all():
            raise BadData(f"{self.root / SETS}: its set {np.argmin(listed)} names what it does not list")
        return table
