"""Convert the download of a data set to its prepared folder. Interrupted conversions resume.

streamvggt data prepare NAME RAW ROOT --workers 8
streamvggt data prepare NAME          prints the expected layout of RAW
"""

from __future__ import annotations

import argparse
import os

from streamvggt.datasets import list_modules
from streamvggt.flags import some_path, whole, word


def add_arguments(parser: argparse.ArgumentParser) -> None:
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("name", choices=list_modules(), metavar="NAME", help=f"data set: {', '.join(list_modules())}")
    parser.add_argument("raw", type=some_path, nargs="?", metavar="RAW", help="folder of the download")
    parser.add_argument(
        "root",
        type=some_path,
        nargs="?",
        metavar="ROOT",
        help="root folder of all data sets; the output folder is created inside",
    )
    parser.add_argument(
        "--workers",
        type=whole(1, 1024),
        default=num_cores,
        metavar="N",
        help=f"number of processes (default: {num_cores}, one per core)",
    )
    parser.add_argument(
        "--scene-pattern",
        type=word,
        default="*",
        metavar="PATTERN",
        help="glob pattern of the scenes to prepare (default: all)",
    )
