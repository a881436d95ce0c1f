"""PointOdyssey, version 1.2. RAW:

train/<scene>/rgbs/rgb_%05d.jpg
              depths/depth_%05d.png   uint16; 65535 is a kilometre, or any farther
              anno.npz                intrinsics (T, 3, 3), extrinsics (T, 4, 4) camera-from-world

Only the scenes that are trained on are prepared. Images are linked, not copied, where the disk allows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData, read_npz, read_png16
from streamvggt.data.sources.point_odyssey import FAR, SCENES, PointOdyssey
from streamvggt.files import link_or_copy

FOLDER = PointOdyssey.folder
FULL = 65535


def scenes(raw: Path) -> list[str]:
    return [f"train/{scene}" for scene in sorted(SCENES) if (raw / "train" / scene).is_dir()]


def prepare(raw: Path, scene: str, folder: Path) -> None:
    for part in ("rgb", "depth", "cam"):
        (folder / part).mkdir()
    cameras = read_npz(raw / scene / "anno.npz", "intrinsics", "extrinsics")
    images = sorted((raw / scene / "rgbs").glob("rgb_*.jpg"))
    if not images:
        raise BadData(f"{raw / scene / 'rgbs'}: no images rgb_%05d.jpg in it")
    last, num_cameras = images[-1].stem.removeprefix("rgb_"), len(cameras["extrinsics"])
    if int(last) >= num_cameras:
        raise BadData(f"{raw / scene}: image {last} has no camera in anno.npz, which has {num_cameras}")
    for image in images:
        frame = image.stem.removeprefix("rgb_")
        depth = read_png16(raw / scene / "depths" / f"depth_{frame}.png")
        depth = np.where(depth < FULL, depth * (FAR / FULL), 0).astype(np.float32)
        link_or_copy(image, folder / "rgb" / f"{frame}.jpg")
        np.save(folder / "depth" / f"{frame}.npy", depth)
        np.savez(
            folder / "cam" / f"{frame}.npz",
            intrinsics=cameras["intrinsics"][int(frame)].astype(np.float32),
            pose=np.linalg.inv(cameras["extrinsics"][int(frame)].astype(np.float64)).astype(np.float32),
        )
