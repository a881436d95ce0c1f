"""Data sets by name: the modules of this package without a leading underscore."""

from __future__ import annotations

import importlib
import pkgutil
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from streamvggt.data.dataset import MultiViewDataset
    from streamvggt.data.dataset_reader import DatasetReader

PACKAGE = __name__.rpartition(".")[0]

T = TypeVar("T")


def list_modules() -> list[str]:
    """Return the names of all data sets, sorted."""
    path = importlib.import_module(PACKAGE).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def get_module(name: str) -> ModuleType:
    """Import the module of a data set.

    Raises:
        ValueError: If there is no data set of that name.
    """
    if name not in list_modules():
        raise ValueError(f"data set: expected one of {', '.join(list_modules())}, got {name!r}.")
    return importlib.import_module(f"{PACKAGE}.{name}")


def readers(name: str, base: type[T]) -> list[type[T]]:
    """Return the classes on top of `base` that the module of a data set defines."""
    module = get_module(name)
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]


def source_class(name: str) -> type[DatasetReader]:
    """Return the reader of a data set with views.

    Raises:
        ValueError: If the data set has none.
    """
    from streamvggt.data.dataset_reader import DatasetReader

    if not (own := readers(name, DatasetReader)):
        raise ValueError(f"{name}: expected a data set with depth and cameras, got one for evaluation only.")
    return own[0]


def training_sets() -> list[str]:
    """Return the names of the data sets to train on: those whose reader selects the views of a sample."""
    from streamvggt.data.dataset_reader import DatasetReader

    names = list_modules()
    return [name for name in names if any(hasattr(reader, "view_sampler") for reader in readers(name, DatasetReader))]


def training_set(reader: str, *, data_root: str | Path, split: str | None = None, **options) -> MultiViewDataset:
    """Build the training samples of a data set.

    Args:
        reader: Name of the data set.
        data_root: Folder of all data sets.
        split: None: The one to train on.
        options: See `MultiViewDataset`.
    """
    from streamvggt.data.dataset import MultiViewDataset

    reader = source_class(reader)
    root = Path(data_root) / reader.folder
    return MultiViewDataset(partial(reader, root, split), root, **options)
