"""Check every data set under ROOT: presence, readability and suitability for training. Draw samples.

A folder without any known data set is treated as custom scenes (docs/own-data.md).

streamvggt data check ../data/train
streamvggt data check my_scans/
streamvggt data check ../data/train spring scannet --frames all --workers 8
"""

from __future__ import annotations

import argparse
from pathlib import Path

from streamvggt.datasets import list_modules
from streamvggt.flags import image_path, real, some_path, whole, word

POSES_ONLY = ("scannetv2_poses", "sintel_poses")
"""Test sets with a second reader, for poses."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=some_path, metavar="ROOT", help="root folder of all data sets")
    parser.add_argument(
        "names",
        type=word,
        nargs="*",
        metavar="NAME",
        help=f"required data sets (default: those present): {', '.join(list_modules())}, {', '.join(POSES_ONLY)}",
    )
    parser.add_argument(
        "--frames", type=int_or_all, default=40, metavar="N", help='frames to read per data set, or "all" (default: 40)'
    )
    parser.add_argument(
        "--pairs",
        type=int_or_all,
        default=4,
        metavar="N",
        help='view pairs to compare per scene, or "all" neighbors (default: 4)',
    )
    parser.add_argument(
        "--depth_unit",
        type=real(1e-9, 1e9),
        metavar="U",
        help="scene units per step of 16-bit depth in custom scenes",
    )
    parser.add_argument("--workers", type=whole(1, 1024), default=4, metavar="N", help="reader threads (default: 4)")
    parser.add_argument(
        "--out", type=image_path, default=Path("data_check.png"), help="output image (default: data_check.png)"
    )


def int_or_all(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} must be a positive number or "all"')
    return int(text)
