"""Check, preview and prepare data sets, and write fixtures.

streamvggt data check ../data/train
streamvggt data prepare spring RAW ../data/train --workers 8
streamvggt data preview train data_root=../data/train
streamvggt data make-fixtures /tmp/fixtures
"""

from __future__ import annotations

import argparse

from streamvggt.cli.arguments.data import check, make_fixtures, prepare, preview

COMMANDS = {"check": check, "preview": preview, "prepare": prepare, "make-fixtures": make_fixtures}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.__doc__.splitlines()[0],
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
