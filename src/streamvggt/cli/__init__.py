"""Command line: `streamvggt reconstruct …`, `streamvggt export …`, `streamvggt data …`, `streamvggt view …`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

import torch

from streamvggt.cli import data, export, reconstruct, view
from streamvggt.model.device import limit_threads

COMMANDS = {"reconstruct": reconstruct, "export": export, "data": data, "view": view}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0 success, 1 error with a message, 2 invalid arguments, 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="streamvggt", description="Streaming 3D reconstruction with a causal visual-geometry transformer."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        summary = command.__doc__.splitlines()[0]
        command.add_arguments(subparsers.add_parser(name, help=summary, description=summary))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may contain characters that the terminal cannot encode
            stream.reconfigure(errors="backslashreplace")
    arguments = parser.parse_args(argv)
    limit_threads()
    try:
        return COMMANDS[arguments.command].run(arguments, sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (torch.OutOfMemoryError, MemoryError) as error:
        print(f"\nerror: there is no memory left ({str(error).partition(chr(10))[0]})", file=sys.stderr)
        print(
            "Take a shorter memory (--policy window:1,4) or smaller images (--size), with another --out.",
            file=sys.stderr,
        )
        return 1
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
