"""What a number was measured on: every table says it."""

import platform
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
            [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
            if cpuinfo.exists()
            else []
        )
        name = models[0].split(":")[1].strip() if models else platform.processor()
        name += f", {torch.get_num_threads()} threads"
    return f"{name}; PyTorch {torch.__version__}, Python {platform.python_version()}; {date.today()}"
