"""Where a result came from: machine, software, time, and whether two sets of settings are the same."""

import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from streamvggt.words import counted

PACKAGES = ("streamvggt", "torch", "numpy", "pillow", "av", "opencv-python", "pycolmap", "trimesh", "open3d", "scipy")


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def device_name(device: torch.device) -> str:
    """The card, or the processor and how many threads use it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {processor_name()}, {counted(torch.get_num_threads(), 'thread')}"


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def software_versions() -> dict[str, str]:
    """Python and the packages a result may depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def differences(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What is not as it was, one phrase for each setting."""
    return [
        f"{name} was {earlier.get(name)!r} and is now {value!r}"
        for name, value in settings.items()
        if earlier.get(name) != value
    ]
