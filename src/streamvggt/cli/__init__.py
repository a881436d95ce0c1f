# PYTHON_ARGCOMPLETE_OK
"""Command line: `streamvggt COMMAND …`. The module of a command is imported after its arguments are parsed."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from importlib import import_module

from streamvggt.cli.streams import lasting_streams
from streamvggt.extras import explain_missing
from streamvggt.version import __version__

LOGGER = logging.getLogger("streamvggt")


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Args:
        module: Module in this package that defines `run(arguments, argv)`. The module of the same name in
            `streamvggt.cli.arguments` defines `add_arguments(parser)`. If `parses_itself`, there is no such module, and
            `run(name, argv)` parses the arguments.
        summary: First line of the help.
        extra: Extra to install if an optional package is missing (`streamvggt.extras`).
        parses_itself: Whether the arguments are parsed by another program: Hydra, or an evaluation protocol.
    """

    module: str
    summary: str
    extra: str
    parses_itself: bool = False


COMMANDS = {
    "reconstruct": Command(
        "reconstruct",
        "Reconstruct cameras, depth maps and a point cloud from photos, a video or a camera, frame by frame.",
        "export",
    ),
    "view": Command(
        "view", "View a growing reconstruction in the browser from photos, a video, a webcam or a URL.", "demo"
    ),
    "export": Command(
        "export", "Export GLB, PLY, COLMAP and other files from a result folder, without running the model.", "export"
    ),
    "demo": Command("demo", "Serve the demo page: reconstruct photos, a video or a camera in the browser.", "demo"),
    "data": Command("data", "Check, preview and prepare data sets, and write fixtures.", "prepare"),
    "train": Command("training", "Train StreamVGGT by distillation from a configuration.", "train", parses_itself=True),
    "finetune": Command("training", "Fine-tune or train VGGT from a configuration.", "train", parses_itself=True),
    "evaluate": Command("evaluate", "Evaluate a model on test sets or custom scenes.", "eval", parses_itself=True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Command-line arguments. None: `sys.argv[1:]`.

    Returns:
        The exit status: 0 success, 1 error with a message, 2 invalid arguments, 130 interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    with lasting_streams():
        return run_and_report(argv)


def run_and_report(argv: list[str]) -> int:
    """Run a command and print its error. Return the exit status."""
    flags, rest = verbosity_parser().parse_known_args(argv)
    set_verbosity(flags)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere) if flags.quiet else nullcontext(),
        ):
            return run_command(rest, argv)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError, RuntimeError, MemoryError) as error:
        print_error(error)
        return 1


def run_command(words: Sequence[str], argv: list[str]) -> int:
    """Parse the arguments of a command, import its module and run it.

    Args:
        words: Arguments without the flags of `verbosity_parser`.
        argv: All arguments, for run.json.
    """
    is_completion = "_ARGCOMPLETE" in os.environ
    given = os.environ.get("COMP_LINE", "").split()[1:] if is_completion else words
    name = next((word for word in given if word in COMMANDS), None)
    with explain_missing(COMMANDS[name].extra if name else "completion"):
        parser = build_parser(name)
        if is_completion:
            import argcomplete

            argcomplete.autocomplete(parser)
        arguments = parser.parse_args(words)
        module, command = command_module(arguments.command), COMMANDS[arguments.command]
        if command.parses_itself:
            return module.run(arguments.command, arguments.options)
        from streamvggt.model.threads import set_threads

        set_threads()
        return module.run(arguments, argv)


def build_parser(name: str | None) -> argparse.ArgumentParser:
    """Return the parser with all commands, but with the arguments of command `name` only."""
    common = verbosity_parser()
    parser = argparse.ArgumentParser(
        prog="streamvggt",
        description="Streaming 3D reconstruction with a causal visual-geometry transformer.",
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for known, command in COMMANDS.items():
        if command.parses_itself:  # without a prefix, argparse takes all options as values
            subparser = subparsers.add_parser(known, help=command.summary, add_help=False, prefix_chars="\0")
            subparser.add_argument("options", nargs=argparse.REMAINDER)
        else:
            subparser = subparsers.add_parser(
                known, help=command.summary, description=command.summary, parents=[common]
            )
            if known == name:
                import_module(f"{__name__}.arguments.{command.module}").add_arguments(subparser)
    return parser


def command_module(name: str):
    return import_module(f"{__name__}.{COMMANDS[name].module}")


def verbosity_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags that every command accepts at any position."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    group.add_argument("-v", "--verbose", action="store_true", help="also print log messages and tracebacks of errors")
    return parser


def set_verbosity(flags: argparse.Namespace) -> None:
    if flags.quiet:
        os.environ["TQDM_DISABLE"] = "1"
    if flags.verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
    LOGGER.setLevel(logging.DEBUG if flags.verbose else logging.ERROR if flags.quiet else logging.NOTSET)


def print_error(error: BaseException) -> None:
    """Print one message, and the traceback with --verbose."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # of torch
        print(f"\nerror: out of memory ({str(error).partition(chr(10))[0]})", file=sys.stderr)
        print(
            "Take a shorter memory (--policy window:1,4) or smaller images (--size), with another --out.",
            file=sys.stderr,
        )
    else:
        print(f"\nerror: {error}", file=sys.stderr)
