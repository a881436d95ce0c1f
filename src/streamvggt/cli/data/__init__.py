"""Check, preview and prepare data sets, and write fixtures.

streamvggt data check ../data/train
streamvggt data prepare spring RAW ../data/train --workers 8
streamvggt data preview train data_root=../data/train
streamvggt data make-fixtures /tmp/fixtures
"""

from __future__ import annotations

import argparse

from streamvggt.cli.data import check, make_fixtures, prepare, preview

COMMANDS = {"check": check, "preview": preview, "prepare": prepare, "make-fixtures": make_fixtures}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        summary = command.__doc__.splitlines()[0]
        command.add_arguments(
            subparsers.add_parser(
                name,
                help=summary,
                description=command.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    return COMMANDS[arguments.data_command].run(arguments)
