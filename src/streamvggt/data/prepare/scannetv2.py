"""ScanNet's test scenes (scene0707_00 … scene0806_00) for depth and camera trajectories. RAW is the download:

RAW/scans_test/<scene>/<scene>.sens
    or instead, as its SensReader exports:  color/<n>.jpg  depth/<n>.png  pose/<n>.txt

The first 90 frames, three apart, are taken. (The same recordings as training data: `streamvggt data prepare scannet`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from natsort import natsorted

from streamvggt.data.decode import BadData
from streamvggt.data.encode import write_png
from streamvggt.data.prepare._runner import Skip
from streamvggt.data.prepare._sens import SensFile
from streamvggt.files import link_or_copy

FOLDER = "scannetv2"
TAKEN = slice(None, 270, 3)


def scenes(raw: Path) -> list[str]:
    return sorted(folder.name for folder in (raw / "scans_test").glob("scene*") if folder.is_dir())


def prepare(raw: Path, scene: str, folder: Path) -> None:
    recording = raw / "scans_test" / scene
    for kind in ("color_90", "depth_90"):
        (folder / kind).mkdir()
    sens = recording / f"{scene}.sens"
    poses = list(_from_sens(sens, folder) if sens.exists() else _from_export(recording, folder))
    if not poses:
        raise Skip("it has no frames")
    np.savetxt(folder / "pose_90.txt", [pose.flatten() for pose in poses], fmt="%.9f")


def _from_sens(path: Path, folder: Path) -> Iterator[np.ndarray]:
    """World-from-camera of each frame, whose files are written."""
    with SensFile(path) as recording:
        if recording.header.colour_suffix != ".jpg":
            raise BadData(f"{path}: JPEG images were expected, they are {recording.header.colour_suffix}")
        for number, frame in enumerate(islice(recording, TAKEN.start, TAKEN.stop, TAKEN.step)):
            (folder / f"color_90/frame_{number:04d}.jpg").write_bytes(frame.colour)
            write_png(folder / f"depth_90/frame_{number:04d}.png", np.rint(frame.depth * 1000).astype(np.uint16))
            yield frame.world_from_cam


def _from_export(recording: Path, folder: Path) -> Iterator[np.ndarray]:
    for number, path in enumerate(natsorted(recording.glob("pose/*.txt"))[TAKEN]):
        link_or_copy(recording / f"color/{path.stem}.jpg", folder / f"color_90/frame_{number:04d}.jpg")
        link_or_copy(recording / f"depth/{path.stem}.png", folder / f"depth_90/frame_{number:04d}.png")
        yield np.loadtxt(path).reshape(4, 4)
