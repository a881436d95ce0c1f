"""Evaluate a model on test sets or custom scenes (docs/evaluation.md).

streamvggt evaluate video_depth --weights lch01/StreamVGGT --data_root /data/eval --output_dir results/{data}
streamvggt evaluate own scans/ --weights tiny
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

PROTOCOLS = {
    "monodepth": "monodepth:MonoDepth",
    "video_depth": "video_depth:VideoDepth",
    "trajectory": "trajectory",
    "mv_recon": "mv_recon",
    "co3d": "co3d",
    "own": "own",
    "synthetic": "synthetic",
    "report": "report",
}
"""Name → module of `streamvggt.evaluation`, and the class in it whose method is the program."""


def run(name: str, argv: list[str]) -> int:
    """Run the program of a protocol with the remaining arguments."""
    parser = argparse.ArgumentParser(prog=f"streamvggt {name}", description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=PROTOCOLS, help=f"protocol: {', '.join(PROTOCOLS)}", metavar="PROTOCOL")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="see `streamvggt evaluate PROTOCOL --help`")
    arguments = parser.parse_args(argv)
    module, _, owner = PROTOCOLS[arguments.protocol].partition(":")
    program = import_module(f"streamvggt.evaluation.{module}")
    sys.argv = [f"streamvggt {name} {arguments.protocol}", *arguments.options]  # the program's name and run.json
    main = getattr(program, owner)().main if owner else program.main
    return main() or 0
