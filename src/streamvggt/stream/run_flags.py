"""Flags shared by the commands that run a network on frames."""

from __future__ import annotations

import argparse
from typing import get_args

from streamvggt.choices import CameraCacheMode
from streamvggt.flags import word
from streamvggt.stream.policy import POLICY_NAMES
from streamvggt.stream.submaps.options import USAGE

Arguments = argparse.ArgumentParser | argparse._ArgumentGroup


def add_device(arguments: Arguments) -> None:
    """Add --device, see `resolve_device`."""
    arguments.add_argument(
        "--device", type=word, default="auto", help="cuda, mps or cpu (default: fastest available device)"
    )


def add_policy(arguments: Arguments, default: str | None, described: str | None = None) -> None:
    """Add --policy, see `parse_policy`.

    Args:
        arguments: Parser, or group of a parser.
        default: Default value.
        described: Description of the default in the help. None: the value.
    """
    text = f"eviction policy: {POLICY_NAMES}; with numbers as in window:1,8; see docs/streaming.md "
    arguments.add_argument("--policy", type=word, default=default, help=f"{text}(default: {described or default})")


def add_submaps(arguments: Arguments, default: str = "one stream", separator: str = "-") -> None:
    """Add --submaps, --loop-closure and --camera-cache.

    Args:
        arguments: Parser, or group of a parser.
        default: Description of the default of --submaps.
        separator: Separator of words in flags. The flags of the reference evaluation scripts have "_".
    """
    arguments.add_argument(
        "--submaps",
        type=word,
        metavar=USAGE,
        help=f"align overlapping submaps of LENGTH frames, each with a separate --policy (default: {default})",
    )
    arguments.add_argument(
        f"--loop{separator}closure",
        action="store_true",
        help="detect loops and optimize submap poses (requires --submaps)",
    )
    arguments.add_argument(
        f"--camera{separator}cache",
        choices=get_args(CameraCacheMode),
        default="per_iteration",
        help="camera-head cache, see docs/streaming.md (default: per_iteration)",
    )
