"""Output file of every table, and its last lines: the command and the machine."""

import argparse
import shlex
import sys
import textwrap
from pathlib import Path

import torch

from streamvggt.flags import some_path
from streamvggt.provenance import describe_machine

WIDTH = 120
UNBROKEN = ("|", "#", "!")
"""First characters of table rows, headings and pictures, which stay on one line."""


def signed(lines: list[str], device: torch.device) -> str:
    """Append the command and the machine to a report in markdown, and wrap its paragraphs."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    text = [part for line in lines for part in wrapped(line)]
    return "\n".join([*text, "", f"`{command}`", "", describe_machine(device), ""])


def wrapped(text: str) -> list[str]:
    """Return the lines of a text in markdown, with at most `WIDTH` characters each where it can be broken."""
    lines = []
    for line in text.split("\n"):
        if len(line) <= WIDTH or line.startswith(UNBROKEN):
            lines.append(line)
        else:
            lines += textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
    return lines


def publish(lines: list[str], out: Path | None, device: torch.device) -> None:
    """Print a report with command and machine, and write it to a file if one is given."""
    text = signed(lines, device)
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")


def output_path(text: str) -> Path:
    """Parse the path of an output file and create its folder, so that no measurement is lost.

    Raises:
        argparse.ArgumentTypeError: If the text is empty, or the folder cannot be created.
    """
    path = some_path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path.parent}: expected a folder, got {error.strerror}") from error
    return path
