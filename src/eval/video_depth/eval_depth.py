"""Score video depth that launch.py has predicted; --help says how."""

import sys

from streamvggt.evaluation.video_depth import VideoDepth
from streamvggt.evaluation.work import run_program

if __name__ == "__main__":
    sys.exit(run_program(lambda: VideoDepth().main(predict=False)))
