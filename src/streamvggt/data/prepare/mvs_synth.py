"""MVS-Synth: pictures as they are, depth as numpy's arrays, poses in a right-handed world.

RAW  GTAV_720, unpacked (huggingface.co/datasets/phuang17/MVS-Synth)
     <sequence>/images/%04d.png
                depths/%04d.exr
                poses/%04d.json     f_x, f_y, c_x, c_y, extrinsic: camera-from-world 4×4, of a left-handed world
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from streamvggt.data.decode import BadData, read_exr, read_json
from streamvggt.data.sources.mvs_synth import MvsSynth

FOLDER = MvsSynth.folder
SWAPPED = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
"""x and y of the world change places, which makes its axes right-handed."""


def scenes(raw: Path) -> list[str]:
    return sorted(path.parent.name for path in raw.glob("*/poses"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    for part in ("rgb", "depth", "cam"):
        (folder / part).mkdir()
    for picture in sorted((raw / scene / "images").glob("*.png")):
        path = raw / scene / f"poses/{picture.stem}.json"
        camera = read_json(path)
        try:
            intrinsics = [[camera["f_x"], 0, camera["c_x"]], [0, camera["f_y"], camera["c_y"]], [0, 0, 1]]
            extrinsic = np.asarray(camera["extrinsic"], np.float64).reshape(4, 4)
        except (KeyError, ValueError, TypeError) as error:
            raise BadData(f"{path}: f_x, f_y, c_x, c_y and a 4×4 extrinsic were expected ({error})") from error
        depth = read_exr(raw / scene / f"depths/{picture.stem}.exr")
        shutil.copyfile(picture, folder / f"rgb/{picture.stem}.jpg")  # the published name; readers go by content
        np.save(folder / f"depth/{picture.stem}.npy", np.where(np.isfinite(depth), depth, np.float32(0)))
        np.savez(
            folder / f"cam/{picture.stem}.npz",
            intrinsics=np.array(intrinsics, np.float32),
            pose=SWAPPED @ np.linalg.inv(extrinsic),
        )
