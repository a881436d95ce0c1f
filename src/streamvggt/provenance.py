"""Provenance of a run: command, settings, machine, software and time.

Used by run.json of reconstructions (`cli.run_metadata`) and of evaluations (`evaluation.run_metadata`), and by the
captions of benchmark tables.
"""

import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import torch

from streamvggt.words import counted

PACKAGES = ("streamvggt", "torch", "numpy", "pillow", "av", "opencv-python", "pycolmap", "trimesh", "open3d", "scipy")

PROCEDURAL_MARK = "rendered by procedural_scenes"
"""Comment in videos and photos of the procedural world. `python -m procedural_scenes clip` writes it."""


def run_metadata(settings: Mapping[str, Any], command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the entries common to all run.json files.

    Args:
        settings: All settings that determine the result, including the fingerprint of the weights.
        command: Command-line arguments. None: `sys.argv`.
    """
    return {
        "command": list(sys.argv if command is None else command),
        "settings": dict(settings),
        "versions": software_versions(),
        "started": timestamp(),
    }


def require_same_settings(folder: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any], remedy: str) -> None:
    """Check that a result is resumed with unchanged settings.

    Args:
        folder: Folder of the existing result, for the message.
        earlier: Settings of the existing result.
        settings: Settings of this run.
        remedy: Sentence that ends the message, with the fix.

    Raises:
        ValueError: If a setting differs.
    """
    if changed := diff_settings(earlier, settings):
        raise ValueError(
            f"{folder} was made with other settings and a result does not mix two: {'; '.join(changed)}. {remedy}"
        )


def timestamp() -> str:
    """Return the current UTC time in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or the processor and the number of PyTorch threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {processor_name()}, {counted(torch.get_num_threads(), 'thread')}"


def describe_machine(device: torch.device) -> str:
    """Return device, PyTorch version, Python version and date as the caption of a table."""
    versions = f"PyTorch {torch.__version__}, Python {platform.python_version()}"
    return f"{device_name(device)}; {versions}; {date.today()}"


def processor_name() -> str:
    """Return the model name of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def software_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages among `PACKAGES`."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def diff_settings(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return one phrase per changed setting."""
    return [
        f"{name} was {earlier.get(name)!r} and is now {value!r}"
        for name, value in settings.items()
        if earlier.get(name) != value
    ]
