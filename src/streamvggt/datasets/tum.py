"""TUM RGB-D's dynamic sequences (Sturm et al., IROS 2012): people at a desk. For evaluation of camera trajectories.

ROOT/tum/<sequence>/rgb_90/<time>.png
                    groundtruth_90.txt    a line per image: time, position, quaternion x y z w; world-from-camera

RAW  as the downloads unpack
     rgbd_dataset_freiburg3_<sequence>/rgb/<time>.png, rgb.txt, groundtruth.txt

Images are paired with the nearest pose in time, at most 0.02 s away; of the pairs the first 90, three apart, are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from streamvggt.data.decode import decoding, read_lines, read_table
from streamvggt.data.encode import world_from_cam, write_image
from streamvggt.data.own.tum import associate
from streamvggt.datasets._fixtures import Clip, WrittenScene
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets._trajectory_set import TrajectorySet
from streamvggt.files import link_or_copy
from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix

FOLDER = "tum"
IMAGES, POSES = "rgb_90", "groundtruth_90.txt"
FRAME_RANGE = slice(None, 270, 3)
PREFIX = "rgbd_dataset_"
SEQUENCES = tuple(f"{who}_{how}" for who in ("sitting", "walking") for how in ("halfsphere", "rpy", "static", "xyz"))
START = 1341845688.5
"""First time of fixtures in seconds."""


class Tum(TrajectorySet):
    """TUM RGB-D, dynamic sequences: every prepared sequence."""

    name, folder = "TUM-dynamics", FOLDER

    def list_scenes(self) -> list[str]:
        return [path.parent.name for path in self.root.glob(f"*/{POSES}")]

    def images(self, sequence: str) -> list[Path]:
        return sorted((self.root / sequence / IMAGES).glob("*.png"))

    def poses(self, sequence: str) -> Tensor:
        table = torch.from_numpy(read_table(self.root / sequence / POSES, 8))
        return invert_pose(torch.cat([matrix_from_quaternion(table[:, 4:]), table[:, 1:4, None]], -1))


def raw_scenes(raw: Path) -> list[str]:
    return sorted(path.parent.name for path in raw.glob(f"{PREFIX}*/groundtruth.txt"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    images = read_list(raw / scene / "rgb.txt")
    poses = read_list(raw / scene / "groundtruth.txt")
    pairs = associate([time for time, _ in images], [time for time, _ in poses])[FRAME_RANGE]
    if len(pairs) < 2:
        raise SkipScene("fewer than two images have a pose")
    (folder / IMAGES).mkdir()
    for image, _ in pairs:
        source = raw / scene / images[image][1]
        link_or_copy(source, folder / IMAGES / source.name)
    lines = [f"{poses[pose][0]:.4f} {poses[pose][1]}" for _, pose in pairs]
    (folder / POSES).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_list(path: Path) -> list[tuple[float, str]]:
    """Read times in seconds and values of a list, sorted by time."""
    lines = [line.split(maxsplit=1) for line in read_lines(path) if line.strip()]
    with decoding(path, "lines of a time and more"):
        return sorted((float(time), rest.strip()) for time, rest in lines)


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures, one sequence per name."""
    written = []
    for sequence, clip in zip(SEQUENCES, clips, strict=False):
        folder = out / FOLDER / f"{PREFIX}freiburg3_{sequence}"
        times = [START + 0.1 * number for number in range(len(clip))]
        for time, view in zip(times, clip, strict=True):
            write_image(folder / f"{IMAGES}/{time:.6f}.png", view)
        lines = [f"{time:.4f} {_pose(world_from_cam(view))}\n" for time, view in zip(times, clip, strict=True)]
        (folder / POSES).write_text("".join(lines), encoding="utf-8")
        written.append(WrittenScene(folder.name, [f"{time:.6f}" for time in times]))
    return written


def _pose(matrix) -> str:
    """Return translation and quaternion x, y, z, w."""
    pose = torch.from_numpy(matrix)
    numbers = torch.cat([pose[:3, 3], quaternion_from_matrix(pose[:3, :3])])
    return " ".join(f"{number:.9f}" for number in numbers.tolist())
