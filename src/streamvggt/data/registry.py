"""Modules by name: a file put into a folder is found there, and needs no other mention."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

SOURCES, LAYOUTS, PREPARE = (f"streamvggt.data.{part}" for part in ("sources", "synthetic.layouts", "prepare"))


def names(package: str) -> list[str]:
    """Names of the modules of a package, sorted, but those that begin with an underscore."""
    path = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def find(package: str, name: str) -> ModuleType:
    """
    Raises:
        ValueError: the package has no such module.
    """
    if name not in names(package):
        raise ValueError(f"{name!r} is unknown; choose of {', '.join(names(package))}")
    return importlib.import_module(f"{package}.{name}")


def classes_in(module: ModuleType, base: type) -> list[type]:
    """The classes that a module defines on top of `base`."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base
        if value.__module__ == module.__name__
    ]


def class_in(module: ModuleType, base: type) -> type:
    """The one class that a module defines on top of `base`."""
    own = classes_in(module, base)
    assert len(own) == 1, f"{module.__name__} must define one {base.__name__}, it defines {len(own)}"
    return own[0]
