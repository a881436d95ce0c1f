"""The last lines of every table: the command that made it, and on what."""

import shlex
import sys
from pathlib import Path

import torch

from streamvggt.provenance import describe_machine


def signed(lines: list[str], device: torch.device) -> str:
    """A report in markdown, the command and the machine below it."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return "\n".join([*lines, "", f"`{command}`", "", describe_machine(device), ""])


def publish(lines: list[str], out: Path | None, device: torch.device) -> None:
    """Print a report, signed, and write it to a file if there is one."""
    text = signed(lines, device)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
