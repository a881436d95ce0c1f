"""Arguments of `streamvggt export`."""

from __future__ import annotations

import argparse

from streamvggt.cli.arguments.exports import add_export_arguments
from streamvggt.flags import some_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s RESULT [options]"
    parser.epilog = "example: streamvggt export results/clip --formats glb,colmap"
    parser.add_argument("result", metavar="RESULT", type=some_path, help="result folder of `streamvggt reconstruct`")
    parser.add_argument("--out", type=some_path, help="output folder (default: the result folder)")
    add_export_arguments(parser, default="glb,ply")
