"""WildRGB-D (Xia et al., arXiv 2401.12592): a phone with a depth sensor orbits everyday objects.

ROOT/wildrgbd/selected_seqs_train|test.json                         {category: {"scenes/scene_001": [frame numbers]}}
              <category>/scenes/scene_XXX/rgb/%05d.jpg              512×384, or 384×512 of an upright video
                                          depth/%05d.png            uint16, millimeters
                                          masks/%05d.png            uint8, the object where it is above 0.1 of 255
                                          metadata/%05d.npz         camera_intrinsics, camera_pose

RAW is the download of https://github.com/wildrgbd/wildrgbd, unpacked:
     <category>/camera_eval_list.json, nvs_list.json       {"train": [scene, …], "val": [scene, …]}
                scenes/<scene>/rgb/<frame>.png
                               depth/<frame>.png       uint16, millimeters
                               masks/<frame>.png
                               metadata                JSON: w, h, K column by column
                               cam_poses.txt           frame and world-from-camera, row by row

Of every category the preparation draws 50 scenes to train on from those that both lists train on, and 10 of the others
to test with; of each scene 100 frames evenly over time (all of a shorter one), cropped around the principal point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamvggt.data.dataset_reader import DatasetReader, make_view
from streamvggt.data.decode import DataError, decoding, read_image, read_json, read_mask, read_png16, read_table
from streamvggt.data.file_index import FileIndex
from streamvggt.data.sampling import ClipSampler, evenly_spaced
from streamvggt.data.transforms import crop_and_resize
from streamvggt.data.view import View
from streamvggt.datasets._files import CameraFile, FrameFiles
from streamvggt.datasets._fixtures import Clip, WrittenScene, near_mask, write_clips
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets._selected import draw, selected_sequences, write_selected

FOLDER = "wildrgbd"
CAMERA = CameraFile("metadata/{}.npz", "camera_intrinsics", "camera_pose", dtype=np.float64)
FILES = FrameFiles("rgb/{}.jpg", "depth/{}.png", CAMERA, "masks/{}.png")
BROKEN = "box/scenes/scene_257"  # the published training also skips it
FOREGROUND = 0.1 * 255
NUM_SCENES = {"train": 50, "test": 10}  # of a category
LISTS = ("camera_eval_list.json", "nvs_list.json")
NUM_FRAMES = 100
SIZE = 512, 384


class WildRGBD(DatasetReader):
    """WildRGB-D. A scene is a sequence of a category."""

    name, folder, is_metric = "WildRGB-D", FOLDER, True
    view_sampler = ClipSampler(max_interval=25, video_prob=0.5, fix_interval_prob=0.5)
    splits = tuple(NUM_SCENES)
    mask_prob = 0.1
    replace_empty_depth = True

    def list_scenes(self, listing: FileIndex) -> dict[str, list[str]]:
        scenes = selected_sequences(listing, self.root / f"selected_seqs_{self.split}.json", "{:05d}")
        scenes.pop(BROKEN, None)
        return scenes

    def read(self, scene: str, frame: str) -> View:
        return FILES.read(self.root / scene, frame).view(self.is_metric)

    def foreground(self, scene: str, frame: str) -> Tensor:
        return torch.from_numpy(FILES.read_mask(self.root / scene, frame) > FOREGROUND)


def raw_scenes(raw: Path) -> list[str]:
    chosen = _chosen(raw)
    return sorted({scene for names in chosen.values() for scene in names} - {BROKEN})


def prepare(raw: Path, scene: str, folder: Path) -> None:
    source = raw / scene
    size, intrinsics = read_camera(source / "metadata")
    numbers_and_poses = read_table(source / "cam_poses.txt", 17)
    if not len(numbers_and_poses):
        raise SkipScene("it has no poses")
    poses = {int(row[0]): row[1:].reshape(4, 4) for row in numbers_and_poses}
    for number in evenly_spaced(sorted(poses), NUM_FRAMES):
        name = f"{number:05d}"
        path = source / f"rgb/{name}.png"
        image = read_image(path)
        if image.shape[:2] != size:
            raise DataError(f"{path} has {image.shape[:2]} pixels, metadata says {size}")
        view = make_view(
            path,
            image=image,
            depth=read_png16(source / f"depth/{name}.png") / 1000,
            intrinsics=intrinsics,
            world_from_cam=poses[number],
            is_metric=True,
        )
        mask = read_mask(source / f"masks/{name}.png")
        view = replace(view, instance_ids=torch.from_numpy(mask.astype(np.int64)))
        height, width = view.depth.shape
        FILES.write(folder, name, crop_and_resize(view, SIZE if width >= height else SIZE[::-1]))


def read_camera(path: Path) -> tuple[tuple[int, int], np.ndarray]:
    """Read height and width, and the intrinsics. (3, 3)"""
    camera = read_json(path)
    with decoding(path, "w, h and nine numbers K"):
        # Column by column: the third column is the last three numbers.
        return (camera["h"], camera["w"]), np.array(camera["K"], np.float64).reshape(3, 3).T


def finish(raw: Path, out: Path) -> None:
    write_selected(out, _chosen(raw), FILES.image.format("*"))


def _chosen(raw: Path) -> dict[str, list[str]]:
    """Return the scenes of a split, "category/scenes/name"."""
    chosen: dict[str, list[str]] = {split: [] for split in NUM_SCENES}
    for folder in sorted(path.parent for path in raw.glob(f"*/{LISTS[0]}")):
        there = {path.name for path in (folder / "scenes").glob("[!.]*") if path.is_dir()}
        train = there.intersection(*(_trained_on(folder / name) for name in LISTS))
        for split, names in (("train", train), ("test", there - train)):
            drawn = draw(names, NUM_SCENES[split], f"{folder.name} {split}")
            chosen[split] += [f"{folder.name}/scenes/{name}" for name in drawn]
    return chosen


def _trained_on(path: Path) -> set[str]:
    """Return the training scenes of a list.

    Raises:
        DataError: If the file has another format.
    """
    lists = read_json(path)
    with decoding(path, '{"train": [scene, …], "val": [scene, …]}'):
        return {Path(name).name for name in lists["train"]}


def write(out: Path, clips: Sequence[Clip]) -> list[WrittenScene]:
    """Write fixtures. The object mask of a frame covers the pixels nearer than the median depth."""
    root = out / FOLDER
    scenes = [f"apple/scenes/scene_{number + 1:03d}" for number in range(len(clips))]
    clips = [[replace(view, instance_ids=near_mask(view)) for view in clip] for clip in clips]
    written = write_clips(FILES, root, clips, scenes, "{:05d}")
    write_selected(root, dict.fromkeys(WildRGBD.splits, scenes), FILES.image.format("*"))
    return written
