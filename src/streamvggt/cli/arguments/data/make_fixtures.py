"""Write procedural scenes in the layouts of data sets, to test commands and trainings without a download.

streamvggt data make-fixtures ROOT [NAME …]

The folders are marked. The evaluation report (streamvggt.evaluation.report) shows their results separately.
"""

from __future__ import annotations

import argparse

from streamvggt.datasets import list_modules
from streamvggt.flags import some_path, whole, word


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=some_path, metavar="ROOT", help="output folder")
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
