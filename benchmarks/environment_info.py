"""Last lines of every table: the command and the machine."""

import shlex
import sys
from pathlib import Path

import torch

from streamvggt.provenance import describe_machine


def signed(lines: list[str], device: torch.device) -> str:
    """Append the command and the machine to a report in markdown."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return "\n".join([*lines, "", f"`{command}`", "", describe_machine(device), ""])


def publish(lines: list[str], out: Path | None, device: torch.device) -> None:
    """Print a report with command and machine, and write it to a file if one is given."""
    text = signed(lines, device)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
