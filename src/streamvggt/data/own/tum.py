"""RGB-D videos in the layout of TUM RGB-D, with the intrinsics in a file as ETH3D SLAM has them.

rgb.txt             lines "time path"; the times are seconds
depth.txt           the same for 16-bit images, 5000 steps per meter
groundtruth.txt     lines "time tx ty tz qx qy qz qw" of world-from-camera, OpenCV axes, meters
calibration.txt     fx fy cx cy [k1 k2 p1 p2 [k3]] of the images; the center of the first pixel is (0, 0)

Each image is paired with the depth and the pose nearest in time, at most 0.02 s away. Images without a partner are left
out. Without groundtruth.txt the poses and intrinsics are unknown, without depth.txt the depth is.

Reference: Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from streamvggt.data.decode import DataError, read_text
from streamvggt.data.own.frame import Frame, checked_world_from_cam
from streamvggt.data.own.lens import Lens, checked_lens

IMAGES, DEPTHS, POSES, CALIBRATION = "rgb.txt", "depth.txt", "groundtruth.txt", "calibration.txt"
DEPTH_UNIT = 1 / 5000
MAX_SECONDS = 0.02


def read_tum(folder: Path, depth_unit: float | None = None) -> list[Frame]:
    """Read the frames of a scene in the order of time. The images themselves are not read.

    Raises:
        DataError: If a line is not as expected, a file is missing or no image has a pose and depth at its time.
    """
    images = _list(folder / IMAGES, 1)
    if not images:
        raise DataError(f"{folder / IMAGES}: expected lines 'time path', got none.")
    depths = _partners(images, folder / DEPTHS, 1)
    poses = _partners(images, folder / POSES, 7)
    lens = None if poses is None else _lens(folder, images[0][1][0])
    frames = []
    for number, (_, (name,)) in enumerate(images):
        if any(partners is not None and number not in partners for partners in (depths, poses)):
            continue
        frames.append(
            Frame(
                name=name,
                image=_file(folder, name, f"{folder / IMAGES}: {name}"),
                lens=lens,
                world_from_cam=_pose(poses[number], f"{folder / POSES}: the pose of {name}") if lens else None,
                depth=_file(folder, depths[number][0], f"{folder / DEPTHS}") if depths is not None else None,
                depth_unit=DEPTH_UNIT if depth_unit is None else depth_unit,
                is_metric=True,
            )
        )
    if not frames:
        raise DataError(f"{folder}: expected times of {IMAGES}, {DEPTHS} and {POSES} within {MAX_SECONDS} s, got none.")
    return frames


def associate(
    first: Sequence[float], second: Sequence[float], max_seconds: float = MAX_SECONDS
) -> list[tuple[int, int]]:
    """Pair the closest times of two lists first, each time at most once, as the benchmark's own tool does.

    Args:
        first, second: Seconds, in ascending order.
        max_seconds: Pairs are closer than this.

    Returns:
        Positions in both lists, in the order of time.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    begins = np.searchsorted(second, first - max_seconds, side="right")
    ends = np.searchsorted(second, first + max_seconds, side="left")
    near = [(abs(first[i] - second[j]), i, j) for i in range(len(first)) for j in range(begins[i], ends[i])]
    pairs, taken_first, taken_second = [], set(), set()
    for _, i, j in sorted(near):
        if i not in taken_first and j not in taken_second:
            pairs.append((i, j))
            taken_first.add(i)
            taken_second.add(j)
    return sorted(pairs)


def _list(path: Path, num_values: int) -> list[tuple[float, list[str]]]:
    """Times and the values of their lines, in the order of time."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        time, *values = line.split("#", 1)[0].split() or [""]
        if not time:
            continue
        try:
            rows.append((float(time), values))
        except ValueError as error:
            raise DataError(f"{path}: line {number}: expected a time in seconds, got {time!r}.") from error
        if len(values) != num_values:
            raise DataError(f"{path}: line {number}: expected a time and {num_values} values, got {line[:60]!r}.")
    return sorted(rows)


def _partners(images: list, path: Path, num_values: int) -> dict[int, list[str]] | None:
    """The values at the time of each image, by its number; None if there is no such file."""
    if not path.is_file():
        return None
    rows = _list(path, num_values)
    times = [time for time, _ in images], [time for time, _ in rows]
    return {image: rows[row][1] for image, row in associate(*times, MAX_SECONDS)}


def _pose(values: Sequence[str], where: str) -> np.ndarray:
    try:
        numbers = np.array(values, np.float64)
        rotation = Rotation.from_quat(numbers[3:]).as_matrix()
    except ValueError as error:
        raise DataError(f"{where}: expected tx ty tz qx qy qz qw, got {' '.join(values)!r}.") from error
    return checked_world_from_cam(np.column_stack([rotation, numbers[:3]]), where)


def _lens(folder: Path, first_image: str) -> Lens:
    path = folder / CALIBRATION
    if not path.is_file():
        raise DataError(f"{path}: expected a file with fx fy cx cy in pixels, got none. Write it in one line.")
    try:
        fx, fy, cx, cy, *bend = map(float, read_text(path).split())
    except ValueError as error:
        raise DataError(f"{path}: expected numbers fx fy cx cy [k1 k2 p1 p2 [k3]] ({error}).") from error
    if len(bend) not in (0, 4, 5):
        raise DataError(f"{path}: expected 4, 8 or 9 numbers fx fy cx cy [k1 k2 p1 p2 [k3]], got {4 + len(bend)}.")
    bend += [0.0] * (8 - len(bend))
    with Image.open(_file(folder, first_image, f"{folder / IMAGES}: {first_image}")) as image:
        return checked_lens("FULL_OPENCV", image.size, (fx, fy, cx + 0.5, cy + 0.5, *bend), f"{path}")


def _file(folder: Path, name: str, where: str) -> Path:
    if not (folder / name).is_file():
        raise DataError(f"{where}: expected an image, got no file {folder / name}. Restore it or remove the line.")
    return folder / name
