"""Check every data set under ROOT: presence, readability and suitability for training. Draw samples."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from streamvggt.data.check import CheckReport, ReadableDataset, check
from streamvggt.data.dataset_reader import DatasetReader, validate_pose
from streamvggt.data.decode import DataError, read_image
from streamvggt.data.own.check import OneScene, check_scene
from streamvggt.data.own.scene import scenes_under
from streamvggt.data.transforms import image_tensor
from streamvggt.data.view import View
from streamvggt.data.visualization import image_grid
from streamvggt.datasets import list_modules, readers
from streamvggt.datasets._depth_set import DepthSet
from streamvggt.datasets._trajectory_set import TrajectorySet

MAX_TOLD = 10  # printed problems per data set


def run(arguments: argparse.Namespace) -> int:
    if not arguments.root.exists():
        raise FileNotFoundError(f"no folder at {arguments.root}; it must contain data sets or custom scenes")
    openers = all_datasets()
    if unknown := sorted(set(arguments.names) - set(openers)):
        raise ValueError(f"{', '.join(unknown)}: unknown; choose from {', '.join(openers)}")
    if not arguments.names and not any((arguments.root / folder).is_dir() for folder, _, _ in openers.values()):
        rows, is_good = check_own(arguments)
    else:
        rows, is_good = check_published(arguments, openers)
    if rows:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_grid(rows)).save(arguments.out)
        print(f"{arguments.out}: the worst pairs, image and depth of both views, and green where they agree, red else")
    return 0 if is_good else 1


def check_own(arguments: argparse.Namespace) -> tuple[list, bool]:
    """Check every scene under the root separately. Return the image rows, and whether all scenes are valid."""
    rows, is_good = [], True
    options = {"num_frames": arguments.frames, "num_pairs": arguments.pairs, "workers": arguments.workers}
    for name, path in scenes_under(arguments.root).items():
        try:
            scene = OneScene(name, path, arguments.depth_unit)
            findings = check_scene(scene, **options)
        except (DataError, OSError) as error:
            print(f"BAD   {name}: {error}")
            is_good = False
            continue
        print_report(f"{name} ({scene})", findings)
        is_good &= findings.is_valid
        rows += findings.rows
    return rows, is_good


def check_published(arguments: argparse.Namespace, openers: dict) -> tuple[list, bool]:
    """Check the data sets that are present. Return the image rows, and whether all data sets are valid."""
    rows, absent, is_good = [], [], True
    for name in arguments.names or openers:
        folder, opened, has_cameras = openers[name]
        if not (arguments.root / folder).is_dir():
            if name in arguments.names:
                print(f"BAD   {name}: no folder at {arguments.root / folder}")
                is_good = False
            absent.append(f"{name} ({folder})")
            continue
        try:
            findings = check(
                opened(arguments.root),
                name=name,
                num_frames=arguments.frames,
                num_pairs=arguments.pairs,
                has_cameras=has_cameras,
                workers=arguments.workers,
            )
        except (DataError, OSError) as error:
            print(f"BAD   {name}: {error}")
            is_good = False
            continue
        print_report(name, findings)
        is_good &= findings.is_valid
        rows += findings.rows
    if absent and not arguments.names:
        print(f"not there: {', '.join(absent)}")
    misnamed_folders(arguments.root, {folder for folder, _, _ in openers.values()})
    return rows, is_good


def print_report(name: str, findings: CheckReport) -> None:
    tqdm.write(f"{'ok   ' if findings.is_valid else 'BAD  '} {name}: {findings}")
    for problem in findings.problems[:MAX_TOLD]:
        print(f"        {problem}")
    if len(findings.problems) > MAX_TOLD:
        print(f"        … and {len(findings.problems) - MAX_TOLD} more")


def misnamed_folders(root: Path, folders: set[str]) -> None:
    """Report folders that contain a data set under another published name."""
    for path in sorted(root.iterdir()):
        bare = path.name.removeprefix("processed_")
        meant = [folder for folder in (bare, f"processed_{bare}") if folder in folders]
        if path.is_dir() and meant and path.name not in folders and not (root / meant[0]).exists():
            print(f"no data set lies in {path.name}; if it should, rename it to {meant[0]}")


def all_datasets() -> dict[str, tuple[str, Callable[[Path], ReadableDataset], bool]]:
    """Return for each training and test set: folder, function to open it under a root, and whether it has cameras."""
    sets = {}
    for name in list_modules():
        for kind in readers(name, DatasetReader):
            sets[name] = kind.folder, lambda root, kind=kind: kind(root / kind.folder), True
        for kind in readers(name, DepthSet):
            sets[name] = kind.folders[0], lambda root, kind=kind: NoCameraDataset(kind(root)), False
        for kind in readers(name, TrajectorySet):
            label = name if name not in sets else f"{name}_poses"
            sets[label] = kind.folder, lambda root, kind=kind: WithoutDepth(kind(root)), False
    return sets


class NoCameraDataset:
    """Adapter of a test set with images and depth that adds placeholder cameras."""

    def __init__(self, depth_set: DepthSet):
        self.depth_set = depth_set
        self.scenes, self.frames = depth_set.scenes, depth_set.frames

    def read(self, scene: str, frame: str) -> View:
        image = image_tensor(read_image(self.depth_set.image_path(scene, frame)))
        depth = self.depth_set.depth(scene, frame).float()
        valid = (depth > 0) & depth.isfinite()
        sky = torch.zeros_like(valid)
        return View(image, torch.where(valid, depth, 0), valid, sky, torch.eye(3), torch.eye(4)[:3], True)


class WithoutDepth:
    """Adapter of a test set with images and cameras that marks every pixel as too far away for depth."""

    def __init__(self, trajectories: TrajectorySet):
        self.scenes = trajectories.scenes
        self.trajectories = trajectories

    def frames(self, scene: str) -> list[str]:
        return [path.stem for path in self.trajectories.images(scene)]

    def read(self, scene: str, frame: str) -> View:
        """Read a view without depth.

        Raises:
            DataError: If the poses do not match the images.
            OSError: If an image is damaged.
        """
        trajectory = self.trajectories.read(scene)
        number = self.frames(scene).index(frame)
        image = image_tensor(read_image(trajectory.images[number]))
        pose = trajectory.cam_from_world[number]
        if pose.isfinite().all():  # the pose is not finite where tracking failed
            validate_pose(pose.numpy(), trajectory.images[number])
        nothing = torch.zeros(image.shape[1:], dtype=torch.bool)
        return View(image, nothing.float(), nothing, ~nothing, torch.eye(3), pose)
