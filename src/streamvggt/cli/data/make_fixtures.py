"""Write procedural scenes in the layouts of data sets, to test commands and trainings without a download."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from procedural_scenes.fixture_clips import world_clips
from streamvggt.datasets import get_module, list_modules
from streamvggt.datasets._fixtures import mark


def run(arguments: argparse.Namespace) -> int:
    modules = {name: get_module(name) for name in arguments.names or list_modules()}
    kinds = {}
    for name, module in tqdm(modules.items(), desc="fixtures", unit="set", dynamic_ncols=True):
        kind = outdoors, fov = getattr(module, "OUTDOORS", False), getattr(module, "FOV", None)
        if kind not in kinds:
            kinds[kind] = world_clips(
                arguments.scenes, arguments.frames, *arguments.size, seed=arguments.seed, outdoors=outdoors, fov=fov
            )
        places = module.write(arguments.root, kinds[kind])
        for folder in (Path(module.FOLDER).parts[0], getattr(module, "IMAGES", "")):
            if folder and (arguments.root / folder).is_dir():
                mark(arguments.root / folder)
        tqdm.write(f"{name}: {', '.join(place.scene for place in places)}")
    return 0
