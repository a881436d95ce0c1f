"""What a number was measured on, and by which command: every table says it."""

import platform
import shlex
import sys
from datetime import date
from pathlib import Path

import torch


def describe(device: torch.device) -> str:
    """Processor or card, PyTorch, date: one line under a table."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        models = (
            [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
            if cpuinfo.exists()
            else []
        )
        name = models[0].split(":")[1].strip() if models else platform.processor()
        name += f", {torch.get_num_threads()} threads"
    return f"{name}; PyTorch {torch.__version__}, Python {platform.python_version()}; {date.today()}"


def signed(lines: list[str], device: torch.device) -> str:
    """A report in markdown, the command and the machine below it."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return "\n".join([*lines, "", f"`{command}`", "", describe(device), ""])


def publish(lines: list[str], out: Path | None, device: torch.device) -> None:
    """Print a report, signed, and write it to a file if there is one."""
    text = signed(lines, device)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
