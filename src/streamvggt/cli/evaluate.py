"""Evaluate a model on test sets or custom scenes (docs/evaluation.md).

streamvggt evaluate video_depth --weights lch01/StreamVGGT --data_root /data/eval --output_dir results/{data}
streamvggt evaluate own scans/ --weights tiny
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from streamvggt.evaluation.arguments import (
    CO3D,
    MONODEPTH,
    MV_RECON,
    TRAJECTORY,
    VIDEO_DEPTH,
    own_parser,
    report_parser,
    synthetic_parser,
)

PROTOCOLS = {
    "monodepth": (MONODEPTH.parser, "monodepth:MonoDepth"),
    "video_depth": (VIDEO_DEPTH.parser, "video_depth:VideoDepth"),
    "trajectory": (TRAJECTORY.parser, "trajectory"),
    "mv_recon": (MV_RECON.parser, "mv_recon"),
    "co3d": (CO3D.parser, "co3d"),
    "own": (own_parser, "own"),
    "synthetic": (synthetic_parser, "synthetic"),
    "report": (report_parser, "report"),
}
"""Name → function that returns the parser, and module of `streamvggt.evaluation` with the class whose method is the
program."""


def run(name: str, argv: list[str]) -> int:
    """Run the program of a protocol with the remaining arguments."""
    parser = argparse.ArgumentParser(prog=f"streamvggt {name}", description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=PROTOCOLS, help=f"protocol: {', '.join(PROTOCOLS)}", metavar="PROTOCOL")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="see `streamvggt evaluate PROTOCOL --help`")
    arguments = parser.parse_args(argv)
    sys.argv = [f"streamvggt {name} {arguments.protocol}", *arguments.options]  # the program's name and run.json
    build_parser, place = PROTOCOLS[arguments.protocol]
    build_parser().parse_args()  # help and invalid arguments end here, before PyTorch is imported
    module, _, owner = place.partition(":")
    program = import_module(f"streamvggt.evaluation.{module}")
    main = getattr(program, owner)().main if owner else program.main
    return main() or 0
