"""CO3Dv2 (Reizenstein et al., arXiv 2109.00512): videos of cameras that orbit objects.

ROOT/processed_co3d/selected_seqs_train|test.json             {category: {sequence: [frame numbers]}}
                    <category>/<sequence>/images/frame%06d.jpg
                                          images/frame%06d.npz   camera_intrinsics, camera_pose, maximum_depth
                                          depths/frame%06d.jpg.geometric.png    uint16, 65535 is maximum_depth
                                          masks/frame%06d.png    uint8, the object where it is above 0.1 of 255

RAW is the full download of https://github.com/facebookresearch/co3d (version 2), unpacked; see _co3d_download.py

Of every category the preparation draws 50 sequences with good cameras (quality above 0.5) from the list fewview_train,
with all frames that are listed. Sequences that the lists fewview_dev and fewview_test evaluate on are never trained on.
Frames are cropped around the principal point and made smaller, until the short side is 384 or the long side 512 pixels,
whichever is larger. The evaluation of poses reads `co3d_annotations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.dataset_reader import DatasetReader, make_view
from streamvggt.data.decode import DataError, decoding, read_image, read_json, read_mask, read_png16
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler
from streamvggt.data.transforms import crop_around_principal_point, nearest_indices, resize
from streamvggt.data.view import View
from streamvggt.datasets._co3d_download import FEW_VIEW_LIST, FRAMES, SEQUENCES, camera, good_sequences, read_jgz
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, near_mask
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets._selected import draw, selected_sequences, write_selected

FOLDER = "processed_co3d"
FULL_SCALE = 65535
CAMERA = CameraFile("images/{}.npz", "camera_intrinsics", "camera_pose", more=("maximum_depth",), dtype=np.float64)
FILES = FrameFiles("images/{}.jpg", "depths/{}.jpg.geometric.png", CAMERA, "masks/{}.png", steps=FULL_SCALE)
FOREGROUND = 0.1 * 255
NUM_SEQUENCES = 50  # of a category
SHORT_SIDE, LONG_SIDE = 384, 512


class CO3D(DatasetReader):
    """CO3Dv2. A scene is a sequence of a category."""

    name, folder, is_metric = "CO3Dv2", FOLDER, False
    view_sampler = ClipSampler(max_interval=25, video_prob=0.5, fix_interval_prob=0.5)
    splits = ("train", "test")
    mask_prob = 0.1
    replace_empty_depth = True

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        return selected_sequences(listing, self.root / f"selected_seqs_{self.split}.json", "frame{:06d}")

    def read(self, scene: str, frame: str) -> View:
        stored = FILES.read(self.root / scene, frame)
        # A maximum that is not a number leaves no depth.
        maximum = np.nan_to_num(float(stored.more["maximum_depth"]), posinf=0)
        return replace(stored, depth=stored.depth * maximum).view(self.is_metric)

    def foreground(self, scene: str, frame: str) -> Tensor:
        return torch.from_numpy(FILES.read_mask(self.root / scene, frame) > FOREGROUND)


def raw_scenes(raw: Path) -> list[str]:
    return sorted({scene for scenes in _chosen(raw).values() for scene in scenes})


def prepare(raw: Path, scene: str, folder: Path) -> None:
    category, sequence = scene.split("/")
    annotations = _annotations(raw / category).get(sequence)
    if annotations is None:
        raise DataError(f"{raw / category / FRAMES}: expected frames of {sequence}, got none. Download it again.")
    written = 0
    for path, annotation in sorted(annotations.items()):
        with decoding(raw / category / FRAMES, f"image, depth, mask and viewpoint of {path}"):
            if annotation["depth"] is None or annotation["viewpoint"] is None:
                continue
            view = _read(raw, annotation)
        if view.valid.any():
            write_frame(folder, Path(path).stem, _small(view))
            written += 1
    if not written:
        raise SkipScene("no frame has depth")


def finish(raw: Path, out: Path) -> None:
    write_selected(out, _chosen(raw), FILES.image.format("*"))


def write_frame(folder: Path, name: str, view: View) -> None:
    """Write a frame with depth relative to its maximum. The object ids of the view are the mask."""
    maximum = np.float32(view.depth.max().item())
    share = view.depth.numpy() / max(maximum, 1e-6)
    FILES.write(folder, name, view, share, maximum_depth=maximum)


def _read(raw: Path, annotation: Mapping) -> View:
    """Read a frame of the download."""
    path = raw / annotation["image"]["path"]
    image = read_image(path)
    depth = _of_size(_read_depth(raw, annotation["depth"]), image)
    mask = np.zeros(image.shape[:2], np.uint8)
    if annotation["mask"] is not None:
        mask = _of_size(read_mask(raw / annotation["mask"]["path"]), image)
    intrinsics, cam_from_world = camera(annotation["viewpoint"], image.shape[:2])
    view = make_view(
        path,
        image=image,
        depth=depth,
        intrinsics=intrinsics,
        world_from_cam=np.linalg.inv(cam_from_world),
        is_metric=False,
    )
    return replace(view, instance_ids=torch.from_numpy(mask.astype(np.int64)))


def _read_depth(raw: Path, annotation: Mapping) -> np.ndarray:
    """Read depth. A pixel stores a half-precision number in 16 bits, valid where the depth mask is set. (H, W)"""
    depth = read_png16(raw / annotation["path"]).view(np.float16).astype(np.float32)
    depth *= annotation["scale_adjustment"]
    if annotation.get("mask_path"):
        depth[read_mask(raw / annotation["mask_path"]) == 0] = 0
    return np.nan_to_num(depth, nan=0, posinf=0, neginf=0)


def _small(view: View) -> View:
    view = crop_around_principal_point(view)
    height, width = view.depth.shape
    scale = min(1, max(SHORT_SIDE / min(height, width), LONG_SIDE / max(height, width)))
    return resize(view, (round(scale * width), round(scale * height)))


def _of_size(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Resize to the size of the image by nearest neighbor."""
    rows, columns = (
        nearest_indices(before, after) for before, after in zip(values.shape, image.shape[:2], strict=True)
    )
    return values[rows[:, None], columns]


def _chosen(raw: Path) -> dict[str, list[str]]:
    """Return the scenes of a split, "category/sequence"."""
    chosen = {split: [] for split in CO3D.splits}
    for path in sorted(raw.glob(f"*/{SEQUENCES}")):
        with decoding(path, "annotations with sequence_name and viewpoint_quality_score"):
            good = good_sequences(read_jgz(path))
        for split, frames in _listed(path.parent).items():
            drawn = draw(good & set(frames), NUM_SEQUENCES, f"{path.parent.name} {split}")
            chosen[split] += [f"{path.parent.name}/{name}" for name in drawn]
    return chosen


@lru_cache(maxsize=1)
def _listed(category: Path) -> dict[str, dict[str, set[str]]]:
    """Return the sequences of the list fewview_train by split, with their images.

    Sequences of the evaluation lists are not in the training split, and training sequences are not in the test split.
    """
    lists = {kind: category / FEW_VIEW_LIST.format(kind) for kind in ("train", "dev", "test")}
    lists = {kind: read_json(path) for kind, path in lists.items() if path.exists()}
    frames: dict[str, dict[str, set[str]]] = {split: {} for split in CO3D.splits}
    with decoding(category / FEW_VIEW_LIST.format("*"), "lists {subset: [[sequence, frame number, image], …]}"):
        for split in CO3D.splits:
            for sequence, _, image in lists.get("train", {}).get(split, []):
                frames[split].setdefault(sequence, set()).add(image)
        evaluated = {entry[0] for kind in ("dev", "test") for entry in lists.get(kind, {}).get("test", [])}
    for sequence in evaluated:
        frames["train"].pop(sequence, None)
    for sequence in frames["train"]:
        frames["test"].pop(sequence, None)
    return frames


@lru_cache(maxsize=1)
def _annotations(category: Path) -> dict[str, dict[str, Mapping]]:
    """Return the annotations of the listed frames by sequence, then by image."""
    listed = _listed(category)
    found: dict[str, dict[str, Mapping]] = {}
    with decoding(category / FRAMES, "annotations with sequence_name and image"):
        for annotation in read_jgz(category / FRAMES):
            sequence, image = annotation["sequence_name"], annotation["image"]["path"]
            if any(image in frames.get(sequence, ()) for frames in listed.values()):
                found.setdefault(sequence, {})[image] = annotation
    return found


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures. The object mask of a frame covers the pixels nearer than the median depth."""
    root = out / FOLDER
    scenes = [f"apple/110_13051_{23361 + number}" for number in range(len(clips))]
    written = []
    for scene, clip in zip(scenes, clips, strict=True):
        frames = [f"frame{frame:06d}" for frame in range(1, len(clip) + 1)]
        for name, view in zip(frames, clip, strict=True):
            write_frame(root / scene, name, replace(view, instance_ids=near_mask(view)))
        written.append(WrittenScene(scene, frames))
    write_selected(root, dict.fromkeys(CO3D.splits, scenes), FILES.image.format("*"))
    return written
