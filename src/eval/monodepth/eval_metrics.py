"""Score monocular depth that launch.py has predicted; --help says how."""

import sys

from streamvggt.evaluation.monodepth import MonoDepth
from streamvggt.evaluation.work import run_program

if __name__ == "__main__":
    sys.exit(run_program(lambda: MonoDepth().main(predict=False)))
