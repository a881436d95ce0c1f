"""RAW is the download of https://github.com/wildrgbd/wildrgbd, unpacked:

RAW/<category>/camera_eval_list.json                  {"train": [scene, …], "val": [scene, …]}
               scenes/<scene>/rgb/<frame>.png
                              depth/<frame>.png       uint16, millimetres
                              masks/<frame>.png
                              metadata                JSON: w, h, K column by column
                              cam_poses.txt           frame and world-from-camera, row by row

Of every category 50 scenes to train on and 10 to test with are taken, of each scene 100 frames evenly over time (all of
a shorter one), cut around the principal point to 512×384 pixels (384×512 of an upright video).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from streamvggt.data.decode import BadData, read_colour, read_json, read_mask, read_png16
from streamvggt.data.encode import millimetres, world_from_cam, write_image, write_png
from streamvggt.data.prepare._runner import Skip
from streamvggt.data.prepare._selected import write_selected
from streamvggt.data.source import checked_view
from streamvggt.data.sources.wildrgbd import BROKEN, WildRGBD
from streamvggt.data.transforms import fit
from streamvggt.data.view import View

FOLDER = WildRGBD.folder
SCENES = {"train": 50, "test": 10}  # of a category
NUM_FRAMES = 100
SIZE = 512, 384


def scenes(raw: Path) -> list[str]:
    chosen = _chosen(raw)
    return sorted({scene for names in chosen.values() for scene in names} - {BROKEN})


def prepare(raw: Path, scene: str, folder: Path) -> None:
    source = raw / scene
    camera = read_json(source / "metadata")
    # Column by column: the third column is the last three numbers.
    intrinsics = np.array(camera["K"], np.float64).reshape(3, 3).T
    numbers_and_poses = np.atleast_2d(np.loadtxt(source / "cam_poses.txt"))
    if not numbers_and_poses.size:
        raise Skip("it has no poses")
    poses = {int(row[0]): row[1:].reshape(4, 4) for row in numbers_and_poses}
    for number in evenly(sorted(poses), NUM_FRAMES):
        name = f"{number:05d}"
        path = source / f"rgb/{name}.png"
        image = read_colour(path)
        if image.shape[:2] != (camera["h"], camera["w"]):
            raise BadData(f"{path} has {image.shape[:2]} pixels, metadata says {(camera['h'], camera['w'])}")
        view = checked_view(
            path,
            image=image,
            depth=read_png16(source / f"depth/{name}.png") / 1000,
            intrinsics=intrinsics,
            world_from_cam=poses[number],
            is_metric=True,
        )
        mask = read_mask(source / f"masks/{name}.png")
        view = replace(view, object_ids=torch.from_numpy(mask.astype(np.int64)))
        height, width = view.depth.shape
        write_frame(folder, name, fit(view, SIZE if width >= height else SIZE[::-1]))


def finish(raw: Path, out: Path) -> None:
    write_selected(out, _chosen(raw), "rgb/*.jpg")


def write_frame(folder: Path, name: str, view: View) -> None:
    """The view's object ids are the mask."""
    write_image(folder / f"rgb/{name}.jpg", view)
    write_png(folder / f"depth/{name}.png", millimetres(view))
    write_png(folder / f"masks/{name}.png", view.object_ids.numpy().astype(np.uint8))
    (folder / "metadata").mkdir(exist_ok=True)
    np.savez(
        folder / f"metadata/{name}.npz",
        camera_intrinsics=view.intrinsics.double().numpy(),
        camera_pose=world_from_cam(view),
    )


def evenly(items: list, count: int) -> list:
    """At most `count` of the items, first and last among them."""
    if len(items) <= count:
        return items
    return [items[number] for number in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _chosen(raw: Path) -> dict[str, list[str]]:
    """The scenes of a split, "category/scenes/name"."""
    chosen = {split: [] for split in SCENES}
    for path in sorted(raw.glob("*/camera_eval_list.json")):
        lists = read_json(path)
        try:
            names = {"train": lists["train"], "test": lists["val"]}
            for split, count in SCENES.items():
                there = [name for name in sorted(names[split]) if (path.parent / "scenes" / Path(name).name).is_dir()]
                chosen[split] += [f"{path.parent.name}/scenes/{Path(name).name}" for name in there[:count]]
        except (KeyError, TypeError) as error:
            raise BadData(f'{path}: {{"train": [scene, …], "val": [scene, …]}} was expected ({error})') from error
    return chosen
