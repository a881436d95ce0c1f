"""Neural RGB-D (Azinović et al., CVPR 2022): rendered rooms. For evaluation of reconstructions, read as downloaded.

ROOT/neural_rgbd/<scene>/images/img<i>.png
                         depth/depth<i>.png    uint16, millimeters
                         poses.txt             four lines a frame: (4, 4) world-from-camera, OpenGL axes; "nan": unknown
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError, read_image, read_table
from streamvggt.data.encode import world_from_cam
from streamvggt.data.file_index import FileIndex
from streamvggt.data.view import View
from streamvggt.datasets._files import FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips
from streamvggt.datasets.seven_scenes import FARTHEST, NEAREST, pinhole, resized

FOLDER = "neural_rgbd"
FILES = FrameFiles("images/img{}.png", "depth/depth{}.png")
POSES = "poses.txt"
FOCAL, WIDTH = 554.2562584220408, 640
"""Focal length in pixels for images of this width, as in focal.txt."""
OPENCV_FROM_OPENGL = np.diag([1.0, -1, -1, 1])
SCENES = ("breakfast_room", "complete_kitchen", "green_room", "grey_white_room", "kitchen")
"""Scenes of fixtures."""
FOV = 2 * math.atan(WIDTH / 2 / FOCAL)


class NeuralRGBD(DatasetReader):
    """Neural RGB-D. Frames with unknown pose are omitted. The published reader places them at the origin."""

    name, folder, is_metric = "Neural RGB-D", FOLDER, True
    splits = ("test",)
    docs_page = "docs/evaluation.md"

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        scenes = {}
        for scene in listing.folders(self.root):
            numbers = listing.files(self.root / scene / "images", ".png")
            poses = read_poses(listing.file(self.root / scene / POSES))
            in_time = sorted(int(name.removeprefix("img")) for name in numbers)
            if in_time and in_time[-1] >= len(poses):
                raise DataError(f"{self.root / scene}: img{in_time[-1]}.png, but {POSES} has only {len(poses)} poses")
            scenes[scene] = [str(number) for number in in_time if np.isfinite(poses[number]).all()]
        return scenes

    def read(self, scene: str, frame: str) -> View:
        folder = self.root / scene
        path = FILES.image_path(folder, frame)
        depth = FILES.read_depth(folder, frame)
        height, width = depth.shape
        return self.view(
            path,
            image=resized(read_image(path), (width, height)),
            depth=np.where((depth >= NEAREST) & (depth <= FARTHEST), depth, 0),
            intrinsics=pinhole(FOCAL * width / WIDTH, width, height),
            world_from_cam=read_poses(folder / POSES)[int(frame)] @ OPENCV_FROM_OPENGL,
        )


def read_poses(path: Path) -> np.ndarray:
    """Read world-from-camera poses with OpenGL axes, NaN where unknown. (S, 4, 4)"""
    rows = read_table(path, 4)
    if len(rows) % 4:
        raise DataError(f"{path}: expected four lines of four numbers a frame, got {len(rows)} lines.")
    return rows.reshape(-1, 4, 4)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures, one scene per name."""
    written = write_clips(FILES, out / FOLDER, clips, SCENES, "{}")
    for place, clip in zip(written, clips, strict=False):
        poses = [world_from_cam(view) @ OPENCV_FROM_OPENGL for view in clip]
        np.savetxt(out / FOLDER / place.scene / POSES, np.concatenate(poses), fmt="%.9f")
    return written
