"""Arguments of `streamvggt demo`."""

from __future__ import annotations

import argparse

from streamvggt.cli.arguments.servers import add_allow_host
from streamvggt.flags import real, whole, word
from streamvggt.stream.run_flags import add_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [options]"
    parser.add_argument("--share", action="store_true", help="also serve the page at a public gradio.live address")
    parser.add_argument("--host", type=word, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=whole(0, 65_535),
        help="port to listen on; 0: any free port (default: GRADIO_SERVER_PORT, or else the first free port from 7860)",
    )
    parser.add_argument(
        "--weights",
        type=word,
        action="append",
        default=[],
        metavar="NAME",
        help="additional weights at the top of the menu; repeatable",
    )
    add_allow_host(parser)
    parser.add_argument(
        "--random-weights", action="store_true", help="add random weights to the menu, for measurements"
    )
    parser.add_argument("--any-weights", action="store_true", help="allow any path or Hub id; only for trusted users")
    parser.add_argument(
        "--max-frames", type=whole(), default=300, help="maximum number of frames per run (default: 300)"
    )
    add_device(parser)
    parser.add_argument("--max-minutes", type=real(0.01, 1e6), default=60, help="maximum minutes per run (default: 60)")
    parser.add_argument(
        "--at-once", type=whole(1, 1000), default=4, help="maximum number of concurrent runs (default: 4)"
    )
    parser.add_argument(
        "--stream-gb", type=real(0.01, 1e6), default=16, help="maximum stream memory per run in GB (default: 16)"
    )
    parser.add_argument(
        "--queue-size", type=whole(0, 100_000), default=8, help="maximum number of queued users (default: 8)"
    )
    parser.add_argument(
        "--expire-minutes",
        type=real(0.01, 1e6),
        default=60,
        metavar="MINUTES",
        help="minutes until an inactive scene is deleted (default: 60)",
    )
    parser.add_argument(
        "--disk-limit-gb",
        type=real(0.01, 1e6),
        default=20,
        metavar="GB",
        help="maximum disk space of uploads and results (default: 20)",
    )
