"""Hashes and sizes of network weights."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from torch import Tensor

from streamvggt.model.random_networks import init_random_model, is_random
from streamvggt.model.shapes_only import shapes_only
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights_file import open_checkpoint
from streamvggt.model.weights_path import resolve_path


def fingerprint(model: VGGT) -> str:
    """Return a hash of the names, shapes and values of all weights, 16 hexadecimal digits.

    The hash is cached until the weights change. Changes through `.data` or NumPy are not detected.
    """
    tensors = model.state_dict()
    versions = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors.values())
    if model not in _MODEL_HASHES or _MODEL_HASHES[model][0] != versions:
        _MODEL_HASHES[model] = versions, _hash_tensors(tensors, tensors.__getitem__)
    return _MODEL_HASHES[model][1]


def file_fingerprint(name_or_path: str | os.PathLike) -> str:
    """Return the `fingerprint` of all tensors in a file, independent of the loaded heads and dtype.

    Args:
        name_or_path: Weights as in `load_model`.
    """
    name = os.fspath(name_or_path)
    if is_random(name):
        return fingerprint(init_random_model(VGGT.build, name, {"causal": True}))
    checkpoint = open_checkpoint(resolve_path(name)[0])
    stamps = tuple((file.resolve(), file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoint.files)
    if stamps not in _FILE_HASHES:
        _FILE_HASHES[stamps] = _hash_tensors(checkpoint.shapes, checkpoint.read)
    return _FILE_HASHES[stamps]


def count_parameters(name_or_path: str | os.PathLike) -> int:
    """Return the number of values of weights as in `load_model`, from the header of their file."""
    name = os.fspath(name_or_path)
    if not is_random(name):
        return sum(math.prod(shape) for shape in open_checkpoint(resolve_path(name)[0]).shapes.values())
    with shapes_only():
        model = init_random_model(VGGT.build, name, {"causal": True})
    return sum(parameter.numel() for parameter in model.parameters())


_MODEL_HASHES: WeakKeyDictionary[VGGT, tuple[tuple, str]] = WeakKeyDictionary()
_FILE_HASHES: dict[tuple, str] = {}


def _hash_tensors(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = read(name)
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().flatten().numpy())
    return digest.hexdigest()[:16]
