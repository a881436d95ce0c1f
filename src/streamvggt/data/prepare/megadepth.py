"""MegaDepth, version 1, depth and models. RAW:

MegaDepth_v1_SfM/<scene>/sparse/manhattan/<sub>/cameras.bin, images.bin, points3D.bin
[phoenix/S6/zl548/]MegaDepth_v1/<scene>/dense<sub>/imgs/x.jpg     undistorted, and no larger than some size
                                                   depths/x.h5    depth; 0 where unknown

Images become at most 800×600. The list of sets, `megadepth_sets_64.npz`, is a download of its own: put it into the
result before or after. Without it one is made, of images that see the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
from tqdm import tqdm

from streamvggt.data.decode import BadData, read_colour, read_exr, read_hdf5, read_npz, write_exr
from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.prepare._covisibility import Small, overlaps
from streamvggt.data.source import checked_view
from streamvggt.data.sources.megadepth import SETS, MegaDepth
from streamvggt.data.transforms import resize
from streamvggt.files import atomic_write
from streamvggt.image_files import open_image

FOLDER = MegaDepth.folder
LARGEST = 800, 600
SET_SIZE = 64
LEAST_MEMBERS = 10
"""Different images of a set; smaller ones serve no training sample."""
LEAST_OVERLAP = 0.1
OURS = "made_by"
"""Key of lists of sets that were made here, and may be added to."""
CANDIDATES = 128
"""Of how many images, those that overlap most with its first one, a set is drawn."""


def scenes(raw: Path) -> list[str]:
    models = sorted((raw / "MegaDepth_v1_SfM").glob("*/sparse/manhattan/*"))
    names = [f"{model.parents[2].name}/{model.name}" for model in models if model.is_dir()]
    return [name for name in names if dense_folder(raw, name).is_dir()]


def dense_folder(raw: Path, scene: str) -> Path:
    name, sub = scene.split("/")
    inside = raw / "phoenix/S6/zl548"
    return (inside if inside.is_dir() else raw) / "MegaDepth_v1" / name / f"dense{sub}"


def prepare(raw: Path, scene: str, folder: Path) -> None:
    """Images without depth are left out, and those that are not of the size that undistorting should have given."""
    name, sub = scene.split("/")
    model = pycolmap.Reconstruction(raw / "MegaDepth_v1_SfM" / name / "sparse/manhattan" / sub)
    dense = dense_folder(raw, scene)
    options = pycolmap.UndistortCameraOptions(max_image_size=largest_side(dense / "imgs"))
    for image in sorted(model.images.values(), key=lambda image: image.name):
        picture, depth_file = dense / "imgs" / image.name, dense / "depths" / f"{Path(image.name).stem}.h5"
        if not picture.exists() or not depth_file.exists():
            continue
        depth = read_hdf5(depth_file, "depth")
        if depth.min() < 0:
            continue  # it only says what is before what
        camera = pycolmap.undistort_camera(options, model.cameras[image.camera_id])
        pixels = read_colour(picture)
        if np.abs(np.subtract(pixels.shape[:2], (camera.height, camera.width))).max() > 1:
            continue
        intrinsics = camera.calibration_matrix()
        intrinsics[:2, 2] -= 0.5  # COLMAP's first pixel has its centre at (½, ½)
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().inverse().matrix()
        view = checked_view(
            picture,
            image=pixels,
            depth=depth,
            intrinsics=intrinsics,
            world_from_cam=pose,
            is_metric=MegaDepth.is_metric,
        )
        height, width = view.depth.shape
        scale = min(LARGEST[0] / width, LARGEST[1] / height, 1)
        view = resize(view, (round(scale * width), round(scale * height)))
        write_image(folder / f"{image.name}.jpg", view)
        write_exr(folder / f"{image.name}.exr", depth_array(view))
        np.savez(
            folder / f"{image.name}.npz", intrinsics=view.intrinsics.double().numpy(), cam2world=world_from_cam(view)
        )
    if not any(folder.iterdir()):
        raise BadData(f"{dense}: no image of the model has a picture of the size that was expected, and depth")


def largest_side(folder: Path) -> int:
    """Of the images in a folder: what undistorting was told to keep to. In pixels."""
    sides = []
    for path in folder.iterdir():
        with open_image(path) as image:  # reads no more than the size
            sides += image.size
    return max(sides, default=-1)


def finish(raw: Path, out: Path) -> None:
    """A list of sets, unless there is the published one."""
    write_sets(out, out / SETS)


def write_sets(root: Path, path: Path) -> None:
    """For each image a set of others that overlap with it, drawn of those that do most.

    Sets of scenes that are in the list already stay as they are.
    """
    scenes, images, sets = [], [], []
    if path.exists():
        with np.load(path) as file:
            if OURS not in file:
                return
            scenes, images, sets = (file[key].tolist() for key in ("scenes", "images", "sets"))
    folders = sorted({file.parent for file in root.glob("[!.]*/[!.]*/*.npz")})
    names = {f"{folder.parent.name} {folder.name}": folder for folder in folders}
    if not (new := [name for name in names if name not in scenes]):
        return
    for scene in tqdm(new, desc="sets", unit="scene", dynamic_ncols=True):
        members = sorted(file.name.removesuffix(".npz") for file in names[scene].glob("*.npz"))
        for chosen in covisible_sets(overlaps(read_small(names[scene], name) for name in members)):
            sets.append([len(scenes), *(len(images) + np.resize(chosen, SET_SIZE))])
        scenes.append(scene)
        images += members
    sets = np.array(sets, np.int64).reshape(-1, 1 + SET_SIZE)
    with atomic_write(path) as unfinished:
        np.savez(unfinished, scenes=np.array(scenes), images=np.array(images), sets=sets, **{OURS: "streamvggt"})


def covisible_sets(shares: np.ndarray) -> list[np.ndarray]:
    """Sets of images by number, each with its first image first.

    Args:
        shares: how much of image i is seen by image j. (N, N)
    """
    random = np.random.default_rng(0)
    both = np.minimum(shares, shares.T)  # a detail and the whole place overlap little, whichever way one asks
    np.fill_diagonal(both, 0)
    sets = []
    for number, row in enumerate(both):
        best = np.argsort(-row, kind="stable")[:CANDIDATES]
        best = best[row[best] > LEAST_OVERLAP]
        if len(best) >= LEAST_MEMBERS - 1:
            others = random.choice(best, min(len(best), SET_SIZE - 1), replace=False)
            sets.append(np.concatenate([[number], others]))
    return sets


def read_small(folder: Path, name: str) -> Small:
    camera = read_npz(folder / f"{name}.npz", "intrinsics", "cam2world")
    return Small.of(
        np.nan_to_num(read_exr(folder / f"{name}.exr")).clip(min=0), camera["intrinsics"], camera["cam2world"]
    )
