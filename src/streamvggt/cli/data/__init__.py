"""Check, preview and prepare data sets, and write fixtures."""

from __future__ import annotations

import argparse
from importlib import import_module


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    """Import the module of a command and run it."""
    return import_module(f"{__name__}.{arguments.data_command.replace('-', '_')}").run(arguments)
