"""MegaDepth (Li and Snavely, arXiv 1804.00607): strangers' photographs of sights, with depth from stereo.

ROOT/processed_megadepth/megadepth_sets_64.npz       scenes (A,) "0001 0"; images (B,) "x.jpg"; sets (M, 65): scene,
                                                     then 64 images of it
                         <scene>/<sub-scene>/x.jpg.jpg   at most 800×600
                                             x.jpg.exr   float32, the model's unit; not positive where unknown
                                             x.jpg.npz   intrinsics (3, 3), cam2world (4, 4)

RAW  version 1, depth and models
     MegaDepth_v1_SfM/<scene>/sparse/manhattan/<sub>/cameras.bin, images.bin, points3D.bin
     [phoenix/S6/zl548/]MegaDepth_v1/<scene>/dense<sub>/imgs/x.jpg     undistorted, and no larger than some size
                                                        depths/x.h5    depth; 0 where unknown

The list of sets, `megadepth_sets_64.npz`, is a separate download. Copy it into the result before or after the
preparation. Without it, the preparation computes sets of overlapping images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from streamvggt.data.dataset_reader import DatasetReader, make_view
from streamvggt.data.decode import DataError, read_hdf5, read_image, read_npz
from streamvggt.data.encode import depth_array
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import GroupSampler
from streamvggt.data.transforms import resize
from streamvggt.data.view import View
from streamvggt.datasets._covisibility import LowResFrame, overlaps
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips
from streamvggt.extras import require
from streamvggt.files import atomic_write
from streamvggt.image_files import open_image

pycolmap = require("pycolmap", "export")

FOLDER = "processed_megadepth"
FILES = FrameFiles("{}.jpg", "{}.exr", CameraFile("{}.npz", pose="cam2world", dtype=np.float64))
SETS = "megadepth_sets_64.npz"
HELD_OUT = ("0015", "0022")
MAX_SIZE = 800, 600
SET_SIZE = 64
MIN_MEMBERS = 10
"""Minimum number of different images of a set. Smaller sets give no training sample."""
MIN_OVERLAP = 0.1
OURS = "made_by"
"""Key of set lists written by this repository, which can be extended."""
CANDIDATES = 128
"""Number of images with the largest overlap from which a set is drawn."""
OUTDOORS = True


class MegaDepth(DatasetReader):
    """MegaDepth: scenes of the list of sets whose folders exist. Frames have no temporal order."""

    name, folder, is_metric = "MegaDepth", FOLDER, False
    view_sampler = GroupSampler()
    splits = ("train", "val", "all")

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        if not listing.exists(self.root / SETS):
            raise FileNotFoundError(
                f"MegaDepth: {self.root / SETS} is missing. It lists overlapping images; docs/data.md describes "
                "how to download or compute it"
            )
        scenes = {}
        for scene, (images, _) in self._sets.items():
            held_out = scene.startswith(HELD_OUT)
            wanted = {"train": not held_out, "val": held_out, "all": True}[self.split]
            if wanted and listing.exists(self.root / scene):
                scenes[scene] = [str(name) for name in self._table["images"][images]]
        return scenes

    def read(self, scene: str, frame: str) -> View:
        return FILES.read(self.root / scene, frame).view(self.is_metric)

    def groups(self, scene: str) -> np.ndarray:
        """Return the image sets. Some contain an image several times. (M, 64)"""
        return self._sets[scene][1]

    @cached_property
    def _sets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the image numbers of each scene (N,) and its sets as positions among them (M, 64)."""
        scene_of, members = np.split(self._table["sets"], [1], axis=1)
        sets = {}
        for number in np.unique(scene_of):
            own = members[scene_of[:, 0] == number]
            images, positions = np.unique(own, return_inverse=True)
            sets[str(self._table["scenes"][number]).replace(" ", "/")] = images, positions.reshape(own.shape)
        return sets

    @cached_property
    def _table(self) -> dict[str, np.ndarray]:
        table = read_npz(self.root / SETS, "scenes", "images", "sets")
        sets = table["sets"]
        if sets.ndim != 2 or sets.shape[1] < 2:
            raise DataError(f"{self.root / SETS}: sets of shape (M, 65) were expected, they are {sets.shape}")
        listed = (sets[:, 0] < len(table["scenes"])) & (sets[:, 1:] < len(table["images"])).all(1) & (sets >= 0).all(1)
        if not listed.all():
            raise DataError(f"{self.root / SETS}: its set {np.argmin(listed)} names what it does not list")
        return table


def raw_scenes(raw: Path) -> list[str]:
    models = sorted((raw / "MegaDepth_v1_SfM").glob("*/sparse/manhattan/*"))
    names = [f"{model.parents[2].name}/{model.name}" for model in models if model.is_dir()]
    return [name for name in names if dense_folder(raw, name).is_dir()]


def dense_folder(raw: Path, scene: str) -> Path:
    name, sub = scene.split("/")
    inside = raw / "phoenix/S6/zl548"
    return (inside if inside.is_dir() else raw) / "MegaDepth_v1" / name / f"dense{sub}"


def prepare(raw: Path, scene: str, folder: Path) -> None:
    """Write a scene. Omits images without depth and images whose size differs from the undistorted size."""
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
            continue  # encodes an order only
        camera = pycolmap.undistort_camera(options, model.cameras[image.camera_id])
        pixels = read_image(picture)
        if np.abs(np.subtract(pixels.shape[:2], (camera.height, camera.width))).max() > 1:
            continue
        intrinsics = camera.calibration_matrix()
        intrinsics[:2, 2] -= 0.5  # COLMAP's first pixel has its center at (½, ½)
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().inverse().matrix()
        view = make_view(
            picture,
            image=pixels,
            depth=depth,
            intrinsics=intrinsics,
            world_from_cam=pose,
            is_metric=MegaDepth.is_metric,
        )
        height, width = view.depth.shape
        scale = min(MAX_SIZE[0] / width, MAX_SIZE[1] / height, 1)
        FILES.write(folder, image.name, resize(view, (round(scale * width), round(scale * height))))
    if not any(folder.iterdir()):
        raise DataError(f"{dense}: no image of the model has depth and an image of the expected size")


def largest_side(folder: Path) -> int:
    """Return the size limit in pixels that the undistortion of the images in a folder used."""
    sides = []
    for path in folder.iterdir():
        with open_image(path) as image:  # reads no more than the size
            sides += image.size
    return max(sides, default=-1)


def finish(raw: Path, out: Path) -> None:
    """Write a list of sets, unless the published list exists."""
    write_sets(out, out / SETS)


def write_sets(root: Path, path: Path) -> None:
    """Draw a set of overlapping images for each image, from those with the largest overlap.

    Existing entries do not change.
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
        for chosen in covisible_sets(overlaps(LowResFrame.read(FILES, names[scene], name) for name in members)):
            sets.append([len(scenes), *(len(images) + np.resize(chosen, SET_SIZE))])
        scenes.append(scene)
        images += members
    sets = np.array(sets, np.int64).reshape(-1, 1 + SET_SIZE)
    with atomic_write(path) as unfinished:
        np.savez(unfinished, scenes=np.array(scenes), images=np.array(images), sets=sets, **{OURS: "streamvggt"})


def covisible_sets(shares: np.ndarray) -> list[np.ndarray]:
    """Return sets of image indices. The first index is the reference image.

    Args:
        shares: Fraction of image i that image j observes. (N, N)
    """
    random = np.random.default_rng(0)
    both = np.minimum(shares, shares.T)  # the smaller of both directions
    np.fill_diagonal(both, 0)
    sets = []
    for number, row in enumerate(both):
        best = np.argsort(-row, kind="stable")[:CANDIDATES]
        best = best[row[best] > MIN_OVERLAP]
        if len(best) >= MIN_MEMBERS - 1:
            others = random.choice(best, min(len(best), SET_SIZE - 1), replace=False)
            sets.append(np.concatenate([[number], others]))
    return sets


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures. Every second scene is outside the training split. Images repeat until a set is full."""
    scenes = [f"{HELD_OUT[0]}/{n // 2}" if n % 2 else f"{n // 2 + 1:04d}/0" for n in range(len(clips))]
    written, images, sets = [], [], []
    for number, (scene, clip) in enumerate(zip(scenes, clips, strict=True)):
        written += write_clips(FILES, out / FOLDER, [clip], [scene], f"{number}_{{}}.jpg", depth=with_negative_sky)
        sets.append([number, *(len(images) + np.arange(SET_SIZE) % len(clip))])
        images += written[-1].frames
    names = [scene.replace("/", " ") for scene in scenes]
    np.savez(out / FOLDER / SETS, scenes=np.array(names), images=np.array(images), sets=np.array(sets))
    return written


def with_negative_sky(view: View) -> np.ndarray:
    return np.where(view.sky, -1, depth_array(view))
