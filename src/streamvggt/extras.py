"""Optional packages: the extra of this project that installs each of them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

EXTRAS: dict[str, set[str]] = {
    "train": {"accelerate", "hydra", "omegaconf", "tensorboard", "h5py", "OpenEXR", "pycolmap"},
    "eval": {"accelerate", "h5py", "OpenEXR", "pycolmap", "matplotlib"},
    "prepare": {"h5py", "OpenEXR", "pycolmap", "google", "embreex"},
    "demo": {"gradio", "starlette", "uvicorn"},
    "export": {"pycolmap"},
    "adapters": {"peft"},
    "rerun": {"rerun"},
    "flash": {"flash_attn"},
    "completion": {"argcomplete"},
}
"""Extra in pyproject.toml → names under which its packages are imported."""


class MissingExtra(ImportError):
    """A package of an extra is not installed."""


@contextmanager
def explain_missing(extra: str) -> Iterator[None]:
    """Replace the error of a missing optional package by the command that installs its extra.

    Args:
        extra: Key of `EXTRAS` to install, if one of its packages is missing in the block.

    Raises:
        MissingExtra: If the block imports a package of an extra that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise explained(error, extra) from error.__cause__


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package of an extra. The handler of SIGTERM stays.

    Raises:
        MissingExtra: If the package is not installed.
    """
    with explain_missing(extra), kept_sigterm():
        return import_module(package)


@contextmanager
def kept_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM at the end of the block, in any thread.

    pycolmap installs a handler that prints a stack trace and skips the cleanup of Python.
    """
    if os.name != "posix":
        yield
        return
    sigaction = ctypes.CDLL(None).sigaction
    before = ctypes.create_string_buffer(1024)  # larger than struct sigaction
    sigaction(signal.SIGTERM, None, before)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a signal during the import waits
    try:
        yield
    finally:
        sigaction(signal.SIGTERM, before, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def explained(error: ModuleNotFoundError, extra: str) -> ImportError:
    """Return the `MissingExtra` for the error of an optional package, else the error itself."""
    package = (error.name or "").partition(".")[0]
    candidates = [name for name in (extra, *EXTRAS) if package in EXTRAS[name]]
    if not candidates:
        return error
    return MissingExtra(
        f'{package}: expected an installed package, got none. Run: pip install "streamvggt[{candidates[0]}]"'
    )
