"""Neural RGB-D (Azinović et al., CVPR 2022): rendered rooms with true depth and cameras.

neural_rgbd/<scene>/images/img<i>.png
                    depth/depth<i>.png    uint16, millimetres
                    poses.txt             four lines a frame: (4, 4) world-from-camera, OpenGL axes; "nan": unknown
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData, read_colour, read_png16
from streamvggt.data.listing import Listing
from streamvggt.data.source import Source
from streamvggt.data.view import View
from streamvggt.evaluation.readers.seven_scenes import FARTHEST, NEAREST, pinhole, resized

FOCAL, WIDTH = 554.2562584220408, 640
"""Pixels of pictures of that width; focal.txt says nothing else."""
OPENCV_FROM_OPENGL = np.diag([1.0, -1, -1, 1])


class NeuralRGBD(Source):
    """Frames whose pose is unknown are left out. (The published reader takes them, at the origin.)"""

    name = "Neural RGB-D"
    folder = "neural_rgbd"
    is_metric = True
    page = "docs/evaluation.md"
    splits = ("test",)
    page = "docs/evaluation.md"

    def list_scenes(self, listing: Listing) -> dict[str, list[str]]:
        scenes = {}
        for scene in listing.folders(self.root):
            numbers = listing.files(self.root / scene / "images", ".png")
            poses = read_poses(listing.file(self.root / scene / "poses.txt"))
            in_time = sorted(int(name.removeprefix("img")) for name in numbers)
            if in_time and in_time[-1] >= len(poses):
                raise BadData(f"{self.root / scene}: img{in_time[-1]}.png, but poses.txt has only {len(poses)} poses")
            scenes[scene] = [str(number) for number in in_time if np.isfinite(poses[number]).all()]
        return scenes

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = folder / f"images/img{frame}.png"
        depth = read_png16(folder / f"depth/depth{frame}.png") / 1000
        height, width = depth.shape
        return self.view(
            path,
            image=resized(read_colour(path), (width, height)),
            depth=np.where((depth >= NEAREST) & (depth <= FARTHEST), depth, 0),
            intrinsics=pinhole(FOCAL * width / WIDTH, width, height),
            world_from_cam=read_poses(folder / "poses.txt")[int(frame)] @ OPENCV_FROM_OPENGL,
        )


def read_poses(path: Path) -> np.ndarray:
    """World-from-camera, OpenGL axes; NaN where unknown. (S, 4, 4)"""
    try:
        return np.loadtxt(path).reshape(-1, 4, 4)
    except ValueError as error:
        raise BadData(f"{path}: four lines of four numbers a frame were expected ({error})") from error
