"""Score video depth that launch.py has predicted; --help says how."""

import sys

from streamvggt.evaluation.jobs import run_main
from streamvggt.evaluation.video_depth import VideoDepth

if __name__ == "__main__":
    sys.exit(run_main(lambda: VideoDepth().main(predict=False)))
