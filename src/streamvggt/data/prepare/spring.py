"""Spring: the left pictures of the training sequences, at half size, with depth instead of disparity.

RAW  the folder that holds `train` (spring-benchmark.org: train_frame_left, train_disp1_left, train_cam_data), or it
     <sequence>/frame_left/frame_left_%04d.png    1920×1080
                disp1_left/disp1_left_%04d.dsp5   HDF5, at twice the size of the pictures
                cam_data/intrinsics.txt           fx fy cx cy, a line per frame
                cam_data/extrinsics.txt           camera-from-world 4×4, a line per frame
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData, read_colour, read_hdf5, write_colour
from streamvggt.data.source import checked_view
from streamvggt.data.sources.spring import Spring
from streamvggt.data.transforms import image_array, resize

FOLDER = Spring.folder
BASELINE = 0.065  # metres


def scenes(raw: Path) -> list[str]:
    """Sequences with disparity; those of the test have none."""
    return sorted(path.parent.name for path in sequences(raw).glob("*/disp1_left"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    sequence = sequences(raw) / scene
    pictures = sorted((sequence / "frame_left").glob("frame_left_*.png"))
    intrinsics = table(sequence / "cam_data/intrinsics.txt", 4, len(pictures))
    extrinsics = table(sequence / "cam_data/extrinsics.txt", 16, len(pictures)).reshape(-1, 4, 4)
    for part in ("rgb", "depth", "cam"):
        (folder / part).mkdir()
    for number, picture in enumerate(pictures):
        fx, fy, cx, cy = intrinsics[number]
        disparity = read_hdf5(sequence / "disp1_left" / f"{picture.stem.replace('frame', 'disp1')}.dsp5", "disparity")[
            ::2, ::2
        ]
        known = np.isfinite(disparity) & (disparity > 0)
        view = checked_view(
            picture,
            is_metric=True,
            image=read_colour(picture),
            depth=np.divide(fx * BASELINE, disparity, where=known, out=np.zeros_like(disparity)),
            intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            world_from_cam=np.linalg.inv(extrinsics[number]),
        )
        height, width = view.depth.shape
        half = resize(view, (width // 2, height // 2))
        write_colour(folder / f"rgb/{number:04d}.png", image_array(half.image))
        np.save(folder / f"depth/{number:04d}.npy", half.depth.numpy())
        np.savez(
            folder / f"cam/{number:04d}.npz",
            intrinsics=half.intrinsics.numpy(),
            pose=np.linalg.inv(extrinsics[number]).astype(np.float32),
        )


def sequences(raw: Path) -> Path:
    return raw / "train" if (raw / "train").is_dir() else raw


def table(path: Path, num_columns: int, num_rows: int) -> np.ndarray:
    """Numbers of a text file, as many as there must be."""
    try:
        values = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise BadData(f"{path}: no table of numbers ({error})") from error
    if values.shape[1] != num_columns or len(values) < num_rows:
        raise BadData(f"{path}: {num_rows} rows of {num_columns} numbers were expected, it has {values.shape}")
    return values
