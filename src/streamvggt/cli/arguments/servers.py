"""Argument of the commands that serve a page."""

from __future__ import annotations

import argparse

from streamvggt.flags import word


def add_allow_host(parser: argparse.ArgumentParser) -> None:
    """Add --allow-host, which can be repeated."""
    parser.add_argument(
        "--allow-host",
        type=word,
        action="append",
        default=[],
        metavar="NAME",
        help="additional accepted host name; repeatable",
    )
