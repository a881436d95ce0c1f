"""RAW is the download of https://github.com/facebookresearch/co3d (version 2), unpacked:

RAW/<category>/frame_annotations.jgz  sequence_annotations.jgz  set_lists/set_lists_fewview_*.json
               <sequence>/images/*.jpg  depths/*.png  masks/*.png  depth_masks/*.png

Of every category the 50 sequences of the few-view lists with the best cameras are taken (quality above 0.5), of each
all frames that are listed; a sequence of which frames are listed to train on is not one to test with. Frames are cut
around the principal point and made smaller, until the short side is 384 or the long side 512 pixels, whichever is
larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from streamvggt.data.decode import BadData, read_colour, read_json, read_mask, read_png16
from streamvggt.data.encode import depth_array, world_from_cam, write_image, write_png
from streamvggt.data.prepare._runner import Skip
from streamvggt.data.prepare._selected import write_selected
from streamvggt.data.prepare.co3d_annotations import read_jgz
from streamvggt.data.source import checked_view
from streamvggt.data.sources.co3d import CO3D, FULL_SCALE
from streamvggt.data.transforms import crop_around_principal_point, nearest, resize
from streamvggt.data.view import View

FOLDER = CO3D.folder
MIN_QUALITY = 0.5
SEQUENCES = 50  # of a category
SHORT_SIDE, LONG_SIDE = 384, 512
FLIP = np.diag([-1.0, -1.0, 1.0])  # PyTorch3D's cameras have x left, y up


def scenes(raw: Path) -> list[str]:
    return sorted({scene for scenes in _chosen(raw).values() for scene in scenes})


def prepare(raw: Path, scene: str, folder: Path) -> None:
    category, sequence = scene.split("/")
    annotations = _annotations(raw / category)[sequence]
    written = 0
    for path, annotation in sorted(annotations.items()):
        if annotation["depth"] is None or annotation["viewpoint"] is None:
            continue
        view = _read(raw, annotation)
        if view.valid.any():
            write_frame(folder, Path(path).stem, _small(view))
            written += 1
    if not written:
        raise Skip("no frame has depth")


def finish(raw: Path, out: Path) -> None:
    write_selected(out, _chosen(raw), "images/*.jpg")


def write_frame(folder: Path, name: str, view: View) -> None:
    """The view's object ids are the mask."""
    depth = depth_array(view)
    maximum = depth.max()
    write_image(folder / f"images/{name}.jpg", view)
    scaled = np.round(depth * (FULL_SCALE / max(maximum, 1e-6))).astype(np.uint16)
    write_png(folder / f"depths/{name}.jpg.geometric.png", scaled)
    write_png(folder / f"masks/{name}.png", view.object_ids.numpy().astype(np.uint8))
    np.savez(
        folder / f"images/{name}.npz",
        camera_intrinsics=view.intrinsics.double().numpy(),
        camera_pose=world_from_cam(view).astype(np.float32),
        maximum_depth=np.float32(maximum),
    )


def _read(raw: Path, annotation: Mapping) -> View:
    """A frame as it was taken."""
    path = raw / annotation["image"]["path"]
    image = read_colour(path)
    depth = _of_size(_read_depth(raw, annotation["depth"]), image)
    mask = np.zeros(image.shape[:2], np.uint8)
    if annotation["mask"] is not None:
        mask = _of_size(read_mask(raw / annotation["mask"]["path"]), image)
    intrinsics, cam_from_world = camera(annotation["viewpoint"], image.shape[:2])
    view = checked_view(
        path,
        image=image,
        depth=depth,
        intrinsics=intrinsics,
        world_from_cam=np.linalg.inv(cam_from_world),
        is_metric=False,
    )
    return replace(view, object_ids=torch.from_numpy(mask.astype(np.int64)))


def _read_depth(raw: Path, annotation: Mapping) -> np.ndarray:
    """The 16 bits of a pixel are a half-precision number; it counts where the depth mask says so. (H, W)"""
    depth = read_png16(raw / annotation["path"]).view(np.float16).astype(np.float32)
    depth *= annotation["scale_adjustment"]
    if annotation.get("mask_path"):
        depth[read_mask(raw / annotation["mask_path"]) == 0] = 0
    return np.nan_to_num(depth, nan=0, posinf=0, neginf=0)


def camera(viewpoint: Mapping, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch3D's camera as OpenCV has it.

    It projects row vectors, x·R + T, with x to the left and y upwards, into coordinates that are 1 at the borders of
    the image or of its largest square, whose origin is the middle of the image.

    Args:
        viewpoint: R, T, focal_length, principal_point, intrinsics_format of an annotation.
        size: H, W of the image.

    Returns:
        intrinsics (3, 3) and cam_from_world (4, 4)
    """
    height, width = size
    half = {
        "ndc_norm_image_bounds": np.array([width, height]) / 2,
        "ndc_isotropic": np.full(2, min(width, height) / 2),
    }.get(viewpoint["intrinsics_format"])
    if half is None:
        raise BadData(f"cameras in the format {viewpoint['intrinsics_format']!r} are not known")
    focal = np.array(viewpoint["focal_length"]) * half
    # The middle of the image is W/2 from its border, but W/2 - 1/2 from the first pixel's centre.
    centre = np.array([width, height]) / 2 - np.array(viewpoint["principal_point"]) * half - 0.5
    intrinsics = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = FLIP @ np.array(viewpoint["R"]).T
    cam_from_world[:3, 3] = FLIP @ np.array(viewpoint["T"])
    return intrinsics, cam_from_world


def _small(view: View) -> View:
    view = crop_around_principal_point(view)
    height, width = view.depth.shape
    scale = min(1, max(SHORT_SIDE / min(height, width), LONG_SIDE / max(height, width)))
    return resize(view, (round(scale * width), round(scale * height)))


def _of_size(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """At the size of the image, by the nearest pixel."""
    rows, columns = (nearest(before, after) for before, after in zip(values.shape, image.shape[:2], strict=True))
    return values[rows[:, None], columns]


def _chosen(raw: Path) -> dict[str, list[str]]:
    """The scenes of a split, "category/sequence"."""
    chosen = {split: [] for split in CO3D.splits}
    for path in sorted(raw.glob("*/sequence_annotations.jgz")):
        for split, frames in _listed(path.parent).items():
            quality = {
                annotation["sequence_name"]: annotation["viewpoint_quality_score"] or 0
                for annotation in read_jgz(path)
                if annotation["sequence_name"] in frames
            }
            good = sorted((name for name in quality if quality[name] > MIN_QUALITY), key=lambda name: -quality[name])
            chosen[split] += [f"{path.parent.name}/{name}" for name in good[:SEQUENCES]]
    return chosen


@lru_cache(maxsize=1)
def _listed(category: Path) -> dict[str, dict[str, set[str]]]:
    """By split: sequences of the few-view lists, and the images of each."""
    frames = {split: {} for split in CO3D.splits}
    for path in sorted((category / "set_lists").glob("set_lists_fewview_*.json")):
        lists = read_json(path)
        for split in CO3D.splits:
            for sequence, _, image in lists.get(split, []):
                frames[split].setdefault(sequence, set()).add(image)
    for sequence in frames["train"]:
        frames["test"].pop(sequence, None)
    return frames


@lru_cache(maxsize=1)
def _annotations(category: Path) -> dict[str, dict[str, Mapping]]:
    """Of the listed frames: by sequence, then by image."""
    listed = _listed(category)
    found: dict[str, dict[str, Mapping]] = {}
    for annotation in read_jgz(category / "frame_annotations.jgz"):
        sequence, image = annotation["sequence_name"], annotation["image"]["path"]
        if any(image in frames.get(sequence, ()) for frames in listed.values()):
            found.setdefault(sequence, {})[image] = annotation
    return found
