"""Which test sets and scenes an evaluation works on: the flags that all share, and what they choose."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from streamvggt.flags import some_path


class Scenes(Protocol):
    """What all readers of test sets have.

    scenes: their names, sorted; a sequence is a scene, too.
    """

    name: str
    root: Path
    scenes: list[str]


def add_data_arguments(
    parser: argparse.ArgumentParser, possible: Sequence[str], default: Sequence[str], output_dir: str
) -> None:
    """
    Args:
        possible, default: names of test sets.
        output_dir: a pattern such as "../eval_results/monodepth/{data}_{model_name}".
    """
    parser.add_argument(
        "--eval_dataset", nargs="+", choices=possible, default=list(default), metavar="NAME",
        help=f"of {', '.join(possible)} (default: {' '.join(default)})",
    )  # fmt: skip
    parser.add_argument("--data_root", type=some_path, default="../data/eval", help="of all test sets")
    parser.add_argument("--output_dir", default=output_dir, help="words in braces are filled in (default: %(default)s)")
    parser.add_argument("--seq_list", nargs="+", metavar="SEQUENCE", help="only these sequences (default: all)")


def check_output_dir(arguments: argparse.Namespace) -> None:
    """For evaluations that have a folder for each test set.

    Raises:
        ValueError: several would share one.
    """
    if len(arguments.eval_dataset) > 1 and "{data}" not in arguments.output_dir:
        raise ValueError(f"--output_dir {arguments.output_dir} for several test sets must contain {{data}}")


def chosen_scenes(reader: Scenes, asked: Sequence[str] | None) -> list[str]:
    """
    Raises:
        ValueError: the test set has no such sequence.
    """
    unknown = [scene for scene in asked or () if scene not in reader.scenes]
    if unknown:
        raise ValueError(f"{reader.name} in {reader.root} has no {', '.join(unknown)}, only {', '.join(reader.scenes)}")
    return reader.scenes if asked is None else [scene for scene in reader.scenes if scene in asked]
