"""TUM RGB-D's dynamic sequences, a test set of camera trajectories. RAW, as the downloads unpack:

RAW/rgbd_dataset_freiburg3_<sequence>/rgb/<time>.png, rgb.txt, groundtruth.txt

Images are paired with the nearest pose in time, at most 0.02 s away; of the pairs the first 90, three apart, are taken.
"""

from __future__ import annotations

from pathlib import Path

from streamvggt.data.own.tum import associate
from streamvggt.data.prepare._runner import Skip
from streamvggt.files import link_or_copy

FOLDER = "tum"
TAKEN = slice(None, 270, 3)


def scenes(raw: Path) -> list[str]:
    return sorted(path.parent.name for path in raw.glob("rgbd_dataset_*/groundtruth.txt"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    images = read_list(raw / scene / "rgb.txt")
    poses = read_list(raw / scene / "groundtruth.txt")
    pairs = associate([time for time, _ in images], [time for time, _ in poses])[TAKEN]
    if len(pairs) < 2:
        raise Skip("fewer than two images have a pose")
    (folder / "rgb_90").mkdir()
    for image, _ in pairs:
        source = raw / scene / images[image][1]
        link_or_copy(source, folder / "rgb_90" / source.name)
    lines = [f"{poses[pose][0]:.4f} {poses[pose][1]}" for _, pose in pairs]
    (folder / "groundtruth_90.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_list(path: Path) -> list[tuple[float, str]]:
    """Times and what is said of them, in the order of time."""
    lines = [
        line.split(maxsplit=1)
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and line[0] != "#"
    ]
    return sorted((float(time), rest.strip()) for time, rest in lines)
