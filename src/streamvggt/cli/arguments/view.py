"""Arguments of `streamvggt view`."""

from __future__ import annotations

import argparse

from streamvggt.cli.arguments.exports import add_camera_arguments
from streamvggt.cli.arguments.servers import add_allow_host
from streamvggt.flags import real, whole, word
from streamvggt.stream.policy import DEFAULT_POLICY
from streamvggt.stream.run_flags import add_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s INPUT [options]"
    parser.epilog = "example: streamvggt view clip.mp4 --weights lch01/StreamVGGT"
    parser.add_argument(
        "input", metavar="INPUT", type=word, help="image folder, glob pattern, video file, webcam number or URL"
    )
    parser.add_argument(
        "--weights", type=word, default="tiny", help="model name, file, folder or Hugging Face id (default: tiny)"
    )
    parser.add_argument(
        "--policy",
        type=word,
        default=DEFAULT_POLICY,
        help=f"eviction policy, as in streamvggt reconstruct (default: {DEFAULT_POLICY})",
    )
    parser.add_argument("--point-head", action="store_true", help="also run the point head")
    parser.add_argument("--fps", type=real(1e-3, 1e3), help="frames per second of a video or camera")
    parser.add_argument("--max-frames", type=whole(), default=1000, help="maximum number of frames (default: 1000)")
    add_device(parser)
    parser.add_argument("--host", type=word, default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(0, 65_535), default=7870, help="port to listen on; 0: any free port (default: 7870)"
    )
    add_allow_host(parser)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument(
        "--no-edge-mask",
        dest="drop_edges",
        action="store_false",
        help="show points at depth discontinuities, which float between objects",
    )
    add_camera_arguments(parser.add_argument_group("known camera"))
    parser.add_argument("--rerun", action="store_true", help="show the scene in the rerun viewer (needs rerun-sdk)")
