"""BlendedMVS (Yao et al., arXiv 1911.10127): photographs of places and things, and the meshes made of them, rendered.

ROOT/processed_blendedmvs/new_overlap.h5        <scene>/basenames (N,), indices (2, M), values (M,): how much image i
                                                shares with image j
                          <scene>/%08d.jpg      512 pixels wide
                                  %08d.exr      float32, the scene's unit; 0 or NaN where there is no mesh
                                  %08d.npz      intrinsics (3, 3), R_cam2world (3, 3), t_cam2world (3,)

RAW  BlendedMVS, BlendedMVS+ and BlendedMVS++, low resolution, all unpacked into one folder
     [<part>/]<scene>/blended_images/%08d.jpg
                      cams/%08d_cam.txt              extrinsic 4×4 camera-from-world, intrinsic 3×3
                      rendered_depth_maps/%08d.pfm

The list of overlaps, `new_overlap.h5`, is a separate download. Copy it into the result before or after the preparation.
Without it, the preparation computes a list by projecting every image into every other image.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from streamvggt.data.dataset_reader import DatasetReader, make_view
from streamvggt.data.decode import DataError, decoding, open_hdf5, read_image, strings
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import GraphWalkSampler
from streamvggt.data.transforms import resize
from streamvggt.data.view import View
from streamvggt.datasets._covisibility import LowResFrame, overlaps
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, write_clips
from streamvggt.files import atomic_write

FOLDER = "processed_blendedmvs"
FILES = FrameFiles("{}.jpg", "{}.exr", CameraFile("{}.npz", pose=("R_cam2world", "t_cam2world")))
OVERLAP = "new_overlap.h5"
WIDTH = 512
OURS = "made_by"
"""Attribute of overlap lists written by this repository, which can be extended."""


class BlendedMVS(DatasetReader):
    """BlendedMVS: scenes of the overlap file whose folders exist, with the images that exist."""

    name, folder, is_metric = "BlendedMVS", FOLDER, False
    view_sampler = GraphWalkSampler(min_overlap=0.2)

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        if not listing.exists(self.root / OVERLAP):
            raise FileNotFoundError(
                f"BlendedMVS: {self.root / OVERLAP} is missing. It lists overlapping images; docs/data.md "
                "describes how to download or compute it"
            )
        scenes = {}
        with open_hdf5(self.root / OVERLAP) as file:
            for scene in sorted(set(file) & set(listing.folders(self.root))):
                there = set(FILES.names(listing, self.root / scene))
                scenes[scene] = [name for name in strings(file[scene]["basenames"]) if name in there]
        return scenes

    def read(self, scene: str, frame: str) -> View:
        return FILES.read(self.root / scene, frame).view(self.is_metric)

    def overlap(self, scene: str) -> tuple[np.ndarray, np.ndarray]:
        position = {name: number for number, name in enumerate(self.frames(scene))}
        with open_hdf5(self.root / OVERLAP) as file:
            names = strings(file[scene]["basenames"])
            pairs, values = file[scene]["indices"][()], file[scene]["values"][()]
            pairs = np.array([position.get(name, -1) for name in names])[pairs]  # (2, M)
        there = (pairs >= 0).all(0)
        return pairs[:, there], values[there]


def raw_scenes(raw: Path) -> list[str]:
    return sorted(cams.parent.name for depth in ("*", "*/*") for cams in raw.glob(f"{depth}/cams"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    source = next(cams.parent for depth in ("", "*/") for cams in raw.glob(f"{depth}{scene}/cams"))
    files = sorted((source / "cams").glob("*_cam.txt"))
    if not files:
        raise DataError(f"{source / 'cams'}: no %08d_cam.txt in it")
    for file in files:
        name = file.stem.removesuffix("_cam")
        intrinsics, cam_from_world = read_camera(file)
        image = source / "blended_images" / f"{name}.jpg"
        view = make_view(
            image,
            image=read_image(image),
            depth=read_pfm(source / "rendered_depth_maps" / f"{name}.pfm"),
            intrinsics=intrinsics,
            world_from_cam=np.linalg.inv(cam_from_world),
            is_metric=BlendedMVS.is_metric,
        )
        height, width = view.depth.shape
        FILES.write(folder, name, resize(view, (WIDTH, round(WIDTH * height / width))))


def finish(raw: Path, out: Path) -> None:
    """Write a list of overlaps, unless the published list exists."""
    write_overlaps(out, out / OVERLAP)


def write_overlaps(root: Path, path: Path) -> None:
    """Add the overlaps of all new scenes to the list. Existing entries do not change."""
    if path.exists():
        with open_hdf5(path) as file:
            known = set(file)
            if OURS not in file.attrs:
                return
    else:
        known = set()
    there = sorted({image.parent for image in root.glob("[!.]*/*.jpg")})
    if not (new := [folder for folder in there if folder.name not in known]):
        return
    with atomic_write(path) as unfinished:
        if path.exists():
            shutil.copy(path, unfinished)
        with h5py.File(unfinished, "a") as file:
            file.attrs[OURS] = "streamvggt"
            for folder in tqdm(new, desc="overlaps", unit="scene", dynamic_ncols=True):
                names = sorted(image.stem for image in folder.glob(FILES.image.format("*")))
                shares = overlaps(LowResFrame.read(FILES, folder, name) for name in names)
                np.fill_diagonal(shares, 0)
                group = file.create_group(folder.name)
                group.attrs["shape"] = shares.shape
                group["basenames"] = np.array(names, "S")
                group["indices"] = np.stack(shares.nonzero())
                group["values"] = shares[shares.nonzero()].astype(np.float32)


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read intrinsics in pixels (3, 3) and the camera-from-world pose (4, 4)."""
    with decoding(path, "an extrinsic of 16 and an intrinsic of 9 numbers"):
        words = path.read_text(encoding="utf-8").split()
        first, second = words.index("extrinsic") + 1, words.index("intrinsic") + 1
        extrinsic = np.array(words[first : first + 16], float).reshape(4, 4)
        return np.array(words[second : second + 9], float).reshape(3, 3), extrinsic


PFM_HEADER = re.compile(rb"Pf\s+(\d+)\s+(\d+)\s+([-+.\deE]+)[ \t]*\r?\n")
"""Width, height and scale; blanks may precede the end of each line."""


def read_pfm(path: Path) -> np.ndarray:
    """Read a PFM file with one channel. Rows are stored bottom to top. A negative scale means little endian.

    OpenCV reads the scale as 0 if a blank precedes the end of the size line.

    Returns:
        (H, W) float32

    Raises:
        DataError: If the file is no PFM file or is truncated.
    """
    content = path.read_bytes()
    header = PFM_HEADER.match(content)
    if header is None:
        raise DataError(f"{path}: damaged, or no PFM file of one channel")
    width, height, scale = int(header[1]), int(header[2]), float(header[3])
    if len(content) - header.end() != 4 * width * height or not scale:
        raise DataError(
            f"{path}: damaged: {4 * width * height} bytes were expected, it has {len(content) - header.end()}"
        )
    values = np.frombuffer(content, "<f4" if scale < 0 else ">f4", offset=header.end())
    return values.reshape(height, width)[::-1].astype(np.float32) * np.float32(abs(scale))


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures. Overlaps are computed from depth and cameras."""
    root = out / FOLDER
    written = write_clips(FILES, root, clips, map("5{:023x}".format, range(len(clips))), "{:08d}")
    write_overlaps(root, root / OVERLAP)
    return written
