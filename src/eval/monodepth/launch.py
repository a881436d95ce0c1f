"""Predict monocular depth; --help says how."""

import sys

from streamvggt.evaluation.jobs import run_main
from streamvggt.evaluation.monodepth import MonoDepth

if __name__ == "__main__":
    sys.exit(run_main(lambda: MonoDepth().main(score=False)))
