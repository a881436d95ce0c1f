"""BlendedMVS, BlendedMVS+ and BlendedMVS++, low resolution, all unpacked into one folder. RAW:

[<part>/]<scene>/blended_images/%08d.jpg
                 cams/%08d_cam.txt              extrinsic 4×4 camera-from-world, intrinsic 3×3
                 rendered_depth_maps/%08d.pfm

Images become 512 pixels wide. The list of overlaps, `new_overlap.h5`, is a download of its own: put it into the result
before or after. Without it one is made, by looking from every image into every other.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
from tqdm import tqdm

from streamvggt.data.decode import BadData, read_colour, read_exr, read_npz, write_exr
from streamvggt.data.encode import depth_array, world_from_cam, write_image
from streamvggt.data.prepare._covisibility import Small, overlaps
from streamvggt.data.source import checked_view
from streamvggt.data.sources.blendedmvs import OVERLAP, BlendedMVS
from streamvggt.data.transforms import resize
from streamvggt.files import atomic_write

FOLDER = BlendedMVS.folder
WIDTH = 512
OURS = "made_by"
"""Attribute of lists of overlaps that were made here, and may be added to."""


def scenes(raw: Path) -> list[str]:
    return sorted(cams.parent.name for depth in ("*", "*/*") for cams in raw.glob(f"{depth}/cams"))


def prepare(raw: Path, scene: str, folder: Path) -> None:
    source = next(cams.parent for depth in ("", "*/") for cams in raw.glob(f"{depth}{scene}/cams"))
    files = sorted((source / "cams").glob("*_cam.txt"))
    if not files:
        raise BadData(f"{source / 'cams'}: no %08d_cam.txt in it")
    for file in files:
        name = file.stem.removesuffix("_cam")
        intrinsics, cam_from_world = read_camera(file)
        image = source / "blended_images" / f"{name}.jpg"
        view = checked_view(
            image,
            image=read_colour(image),
            depth=read_pfm(source / "rendered_depth_maps" / f"{name}.pfm"),
            intrinsics=intrinsics,
            world_from_cam=np.linalg.inv(cam_from_world),
            is_metric=BlendedMVS.is_metric,
        )
        height, width = view.depth.shape
        view = resize(view, (WIDTH, round(WIDTH * height / width)))
        pose = world_from_cam(view).astype(np.float32)
        write_image(folder / f"{name}.jpg", view)
        write_exr(folder / f"{name}.exr", depth_array(view))
        np.savez(
            folder / f"{name}.npz",
            intrinsics=view.intrinsics.numpy(),
            R_cam2world=pose[:3, :3],
            t_cam2world=pose[:3, 3],
        )


def finish(raw: Path, out: Path) -> None:
    """A list of overlaps, unless there is the published one."""
    write_overlaps(out, out / OVERLAP)


def write_overlaps(root: Path, path: Path) -> None:
    """How much the images of every scene share; scenes that are in the list already stay as they are."""
    if path.exists():
        with h5py.File(path, "r") as file:
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
                names = sorted(image.stem for image in folder.glob("*.jpg"))
                shares = overlaps(read_small(folder / name) for name in names)
                np.fill_diagonal(shares, 0)
                group = file.create_group(folder.name)
                group.attrs["shape"] = shares.shape
                group["basenames"] = np.array(names, "S")
                group["indices"] = np.stack(shares.nonzero())
                group["values"] = shares[shares.nonzero()].astype(np.float32)


def read_small(stem: Path) -> Small:
    camera = read_npz(stem.with_suffix(".npz"), "intrinsics", "R_cam2world", "t_cam2world")
    pose = np.eye(4)
    pose[:3] = np.column_stack([camera["R_cam2world"], camera["t_cam2world"]])
    return Small.of(np.nan_to_num(read_exr(stem.with_suffix(".exr"))), camera["intrinsics"], pose)


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (3, 3) and camera-from-world (4, 4)."""
    words = path.read_text(encoding="utf-8").split()
    try:
        first, second = words.index("extrinsic") + 1, words.index("intrinsic") + 1
        extrinsic = np.array(words[first : first + 16], float).reshape(4, 4)
        return np.array(words[second : second + 9], float).reshape(3, 3), extrinsic
    except ValueError as error:
        raise BadData(f"{path}: an extrinsic of 16 and an intrinsic of 9 numbers were expected ({error})") from error


def read_pfm(path: Path) -> np.ndarray:
    """(H, W) float32"""
    depth = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.float32 or depth.ndim != 2:
        raise BadData(f"{path}: damaged, or no PFM file of one channel")
    return depth
