"""Convert the download of a data set to its prepared folder. Interrupted conversions resume.

streamvggt data prepare NAME RAW ROOT --workers 8
streamvggt data prepare NAME          prints the expected layout of RAW
"""

from __future__ import annotations

import argparse
import os

from streamvggt.datasets import get_module, list_modules, prepare
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


def run(arguments: argparse.Namespace) -> int:
    if arguments.raw is None:
        print(get_module(arguments.name).__doc__)
        return 0
    if arguments.root is None:
        raise ValueError(f"name ROOT, too: streamvggt data prepare {arguments.name} {arguments.raw} ROOT")
    report = prepare(
        arguments.name, arguments.raw, arguments.root, workers=arguments.workers, only=arguments.scene_pattern
    )
    for scene, reason in report.skipped.items():
        print(f"skipped: {scene}: {reason}")
    print(report)
    if report.failed:
        print("The same command tries the failed ones again.")
    return 1 if report.failed else 0
