"""How a run was made: command, settings, machine, software and time; and that a result never mixes two settings.

The only place that finds these out. run.json of reconstructions (`cli.run_record`) and of evaluations
(`evaluation.record`) and the last lines of benchmarks' tables are made of them.
"""

import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import torch

from streamvggt.words import counted

PACKAGES = ("streamvggt", "torch", "numpy", "pillow", "av", "opencv-python", "pycolmap", "trimesh", "open3d", "scipy")


def run_metadata(settings: Mapping[str, Any], command: Sequence[str] | None = None) -> dict[str, Any]:
    """What every run.json holds.

    Args:
        settings: all that decides the result, the fingerprint of the weights among it.
        command: its words; None: those of this program.
    """
    return {
        "command": list(sys.argv if command is None else command),
        "settings": dict(settings),
        "versions": software_versions(),
        "started": timestamp(),
    }


def require_same_settings(folder: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any], remedy: str) -> None:
    """
    Args:
        folder: of a result that was made with the earlier settings.
        remedy: what to do if these are others.

    Raises:
        ValueError: they are.
    """
    if changed := diff_settings(earlier, settings):
        raise ValueError(
            f"{folder} was made with other settings and a result does not mix two: {'; '.join(changed)}. {remedy}"
        )


def timestamp() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def device_name(device: torch.device) -> str:
    """The card, or the processor and how many threads use it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {processor_name()}, {counted(torch.get_num_threads(), 'thread')}"


def describe_machine(device: torch.device) -> str:
    """Device, PyTorch, Python and date, for the line under a table."""
    versions = f"PyTorch {torch.__version__}, Python {platform.python_version()}"
    return f"{device_name(device)}; {versions}; {date.today()}"


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


def diff_settings(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What is not as it was, one phrase for each setting."""
    return [
        f"{name} was {earlier.get(name)!r} and is now {value!r}"
        for name, value in settings.items()
        if earlier.get(name) != value
    ]
