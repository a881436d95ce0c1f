"""Write procedural scenes in the layouts of data sets, to test commands and trainings without a download.

streamvggt data make-fixtures ROOT [NAME …]

The folders are marked. The evaluation report (streamvggt.evaluation.report) shows their results separately.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from procedural_scenes.fixture_clips import world_clips
from streamvggt.datasets import get_module, list_modules
from streamvggt.datasets._fixtures import mark
from streamvggt.flags import some_path, whole, word


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=some_path, help="output folder")
    parser.add_argument(
        "names", type=word, nargs="*", metavar="NAME", help=f"data sets (default: all of {', '.join(list_modules())})"
    )
    parser.add_argument("--scenes", type=whole(), default=2, help="scenes per data set (default: 2)")
    parser.add_argument("--frames", type=whole(), default=24, help="frames per scene (default: 24)")
    parser.add_argument(
        "--size",
        type=whole(1, 16_384),
        nargs=2,
        default=(120, 160),
        metavar=("H", "W"),
        help="image size in pixels (default: 120 160)",
    )
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0, help="random seed of the scenes (default: 0)")


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
