"""RAW is the download of http://www.scan-net.org/ScanNet, either as it is or exported by its SensReader:

RAW/scans|scans_train/<scene>/<scene>.sens             scans is taken for scans_train
RAW/scans_test/<scene>/<scene>.sens
    or instead of the .sens:  color/<n>.jpg  depth/<n>.png  pose/<n>.txt  intrinsic/intrinsic_depth.txt

Frames of which the pose was lost are left out. The images get the size of the depth, whose camera is taken for both:
the depth is registered to the colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from natsort import natsorted

from streamvggt.data.decode import BadData, read_colour, read_png16
from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.prepare._runner import Skip
from streamvggt.data.prepare._sens import SensFile
from streamvggt.data.source import checked_view
from streamvggt.data.sources.scannet import TABLE, ScanNet
from streamvggt.data.view import View

FOLDER = ScanNet.folder
RAW_FOLDERS = {"scans_train": ("scans_train", "scans"), "scans_test": ("scans_test",)}


def scenes(raw: Path) -> list[str]:
    return sorted(
        {
            f"{split}/{folder.name}"
            for split, places in RAW_FOLDERS.items()
            for place in places
            for folder in (raw / place).glob("scene*")
            if (folder / "pose").is_dir() or any(folder.glob("*.sens"))
        }
    )


def prepare(raw: Path, scene: str, folder: Path) -> None:
    split, name = scene.split("/")
    recording = next(path for place in RAW_FOLDERS[split] if (path := raw / place / name).is_dir())
    sens = next(recording.glob("*.sens"), None)
    frames = []
    for number, view in _frames_of_export(recording) if sens is None else _frames_of_sens(sens):
        frames.append(f"{number:05d}")
        write_frame(folder, frames[-1], view)
    if not frames:
        raise Skip("no frame has a pose")
    write_table(folder, frames)


def write_frame(folder: Path, name: str, view: View) -> None:
    write_image(folder / f"color/{name}.jpg", view)
    write_png(folder / f"depth/{name}.png", millimetres(view))
    (folder / "cam").mkdir(exist_ok=True)
    np.savez(
        folder / f"cam/{name}.npz",
        intrinsics=view.intrinsics.numpy(),
        pose=world_from_cam(view).astype(np.float32),
    )


def write_table(folder: Path, frames: Iterable[str]) -> None:
    np.savez(folder / TABLE, images=np.array(list(frames)))


def _frames_of_sens(path: Path) -> Iterator[tuple[int, View]]:
    with SensFile(path) as recording:
        for number, frame in enumerate(recording):
            if np.isfinite(frame.world_from_cam).all():
                image = cv2.imdecode(np.frombuffer(frame.colour, np.uint8), cv2.IMREAD_COLOR_RGB)
                if image is None:
                    raise BadData(f"{path}: the image of frame {number} is damaged")
                yield number, _view(path, image, frame.depth, recording.header.depth_intrinsics, frame.world_from_cam)


def _frames_of_export(folder: Path) -> Iterator[tuple[int, View]]:
    intrinsics = np.loadtxt(folder / "intrinsic/intrinsic_depth.txt")[:3, :3]
    for pose in natsorted((folder / "pose").glob("*.txt")):
        image, depth = folder / f"color/{pose.stem}.jpg", folder / f"depth/{pose.stem}.png"
        if np.isfinite(matrix := np.loadtxt(pose)).all():
            yield int(pose.stem), _view(image, read_colour(image), read_png16(depth) / 1000, intrinsics, matrix)


def _view(path: Path, image: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray) -> View:
    """The colours at the size of the depth."""
    image = cv2.resize(image, depth.shape[::-1], interpolation=cv2.INTER_AREA)
    return checked_view(path, image=image, depth=depth, intrinsics=intrinsics, world_from_cam=pose, is_metric=True)
