"""Read tensors and configurations of checkpoint files. No code in a file is executed.

Supported files: safetensors, PyTorch state dicts, training checkpoints with a state dict, and shards of these with an
index.json.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from streamvggt.files import check_seal, is_sealed
from streamvggt.model.config import VGGTConfig
from streamvggt.model.names import original_name

CONFIG_NAME, WEIGHTS_NAME, INDEX_SUFFIX = "config.json", "model.safetensors", ".index.json"
CONFIG_MODEL_TYPE = "streamvggt"  # `model_type` in config.json files of this repository
PICKLED = (".pt", ".pth", ".ckpt", ".bin")
SUFFIXES = (".safetensors", *PICKLED)
ENTRIES = ("model", "state_dict", "model_state_dict", "module")
"""Entries of a training checkpoint that can contain the weights. The first existing entry is used."""
LIGHTNING_PREFIX = "model."
"""PyTorch Lightning stores the network as the attribute `model` of its module."""


@dataclass
class Checkpoint:
    """Tensors of a file or of shards. Tensors are memory-mapped where possible.

    Attributes:
        files: The file, or the index and the shards.
        shapes: Shape per tensor name.
        stored: Function that returns the tensor with a name.
        config: Network configuration. None: no config from this repository.
    """

    files: tuple[Path, ...]
    shapes: dict[str, tuple[int, ...]]
    stored: Callable[[str], Tensor]
    config: dict[str, Any] | None = None

    @property
    def source(self) -> str:
        """Path of the first file, for messages."""
        return str(self.files[0])

    def read(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            ValueError: If the tensor is not dense floating point.
        """
        tensor = self.stored(name)
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise ValueError(
                f"{self.source}: {name}: expected dense floating-point numbers, got {tensor.dtype} ({tensor.layout}). "
                "Save the weights in float32, float16 or bfloat16."
            )
        return tensor


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a file of weights.

    Raises:
        ValueError: If the file is damaged, has an unknown format, contains no state dict, or its config is invalid.
        FileNotFoundError: If a shard is missing.
    """
    if path.name.endswith(INDEX_SUFFIX):
        checkpoint = _open_shards(path)
    elif path.suffix.lower() == ".safetensors":
        checkpoint = _open_safetensors(path)
    elif path.suffix.lower() in PICKLED:
        checkpoint = _open_pickle(path)
    else:
        raise ValueError(f"{path}: weights are .safetensors, .pt or .pth files, also named .ckpt or .bin")
    beside = path.parent / CONFIG_NAME
    if path.name.removesuffix(INDEX_SUFFIX) in (WEIGHTS_NAME, "pytorch_model.bin") and beside.exists():
        config = own_config(beside.read_bytes(), str(beside))
        if checkpoint.config is None:
            checkpoint.config = config
        elif config is not None and config != checkpoint.config:
            wrong = [name for name in config if config[name] != checkpoint.config[name]]
            values = ", ".join(f"{name}={config[name]!r} (the weights: {checkpoint.config[name]!r})" for name in wrong)
            raise ValueError(
                f"{beside}: expected the config that {path.name} holds itself, got {values}. Remove {CONFIG_NAME}, or "
                "put the one there that was written with the weights."
            )
    return checkpoint


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        file = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is cut off: {error}") from error
    names = network_names(file.keys())
    shapes = {name: tuple(file.get_slice(stored).get_shape()) for name, stored in names.items()}
    config = own_config((file.metadata() or {}).get("config"), f"{path}, config")
    return Checkpoint((path,), shapes, lambda name: file.get_tensor(names[name]), config)


def _open_pickle(path: Path) -> Checkpoint:
    content = _load_inert(path)
    is_dict = isinstance(content, dict)
    tensors = next((content[entry] for entry in ENTRIES if entry in content), content) if is_dict else None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        description = f"a dict of {some(map(str, content))}" if is_dict else f"a {type(content).__name__}"
        raise ValueError(
            f"{path} contains no state dict: expected a dict of tensors, or an entry {', '.join(ENTRIES)}; got "
            f"{description}. {_convert(path)}"
        )
    names = network_names(tensors)
    if any(".lora_A." in name for name in names):
        raise ValueError(
            f"{path}: expected plain weights, got a training state with low-rank adapters. "
            "Load best/ or final/ beside it."
        )
    shapes = {name: tuple(tensors[stored].shape) for name, stored in names.items()}
    config = content.get("config") if "config" not in tensors else None
    return Checkpoint((path,), shapes, lambda name: tensors[names[name]], own_config(config, f"{path}, config"))


def _load_inert(path: Path) -> Any:
    """Load a file of torch.save with `weights_only`; an object of any other class becomes an empty placeholder."""
    with open(path, "rb") as file:
        is_zip, is_pickle = zipfile.is_zipfile(file), (file.seek(0), file.read(1))[1] == b"\x80"
    if not (is_zip or is_pickle):
        raise ValueError(f"{path} is not a PyTorch checkpoint, or is cut off")
    if is_sealed(path):  # a training state of this repository
        check_seal(path)
    try:
        # Training checkpoints can contain argument objects. Files from before torch 1.6 support no listing or mapping.
        others = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else []
        with torch.serialization.safe_globals([(_Placeholder, name) for name in others]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was rejected: it contains Python code or objects, which are never executed here. {_convert(path)}"
        ) from error
    except Exception as error:  # a damaged pickle can raise any exception
        raise ValueError(f"{path} is not a PyTorch checkpoint, or is cut off: {error}") from error


class _Placeholder:
    """Replacement for objects of unknown classes. Ignores constructor arguments and state."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, _):
        pass


def _convert(path: Path) -> str:
    return (
        f"If you trust the file, convert it: state = torch.load({str(path)!r}, weights_only=False)['model']; "
        "torch.save(state, 'weights.pt')"
    )


def _open_shards(path: Path) -> Checkpoint:
    """Open a sharded checkpoint from its index."""
    try:
        places = json.loads(path.read_bytes())["weight_map"]
        shards = {name: path.parent / name for name in sorted(set(places.values()))}
        if any(Path(name).name != name or not name.endswith(SUFFIXES) for name in shards):
            raise ValueError(f"its files are {some(shards)}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected JSON with a weight_map of tensors to files beside it, got another content ({error}). "
            "Download the index again."
        ) from error
    if missing := [name for name, shard in shards.items() if not shard.exists()]:
        raise FileNotFoundError(
            f"{path}: expected {len(shards)} files beside it, {some(missing)} missing. Download all."
        )
    opened = {name: open_checkpoint(shard) for name, shard in shards.items()}
    holder = {name: opened[places[stored]] for name, stored in network_names(places).items()}
    if absent := [name for name, shard in holder.items() if name not in shard.shapes]:
        raise ValueError(
            f"{path}: expected the tensors that it lists, {some(absent)} missing. Download all files again."
        )
    config = next((shard.config for shard in opened.values() if shard.config is not None), None)
    shapes = {name: shard.shapes[name] for name, shard in holder.items()}
    return Checkpoint((path, *shards.values()), shapes, lambda name: holder[name].read(name), config)


def network_names(stored: Iterable[str]) -> dict[str, str]:
    """Map tensor names of the network to stored names. Prefixes of wrappers (DDP, FSDP, Lightning) are removed."""
    names = {original_name(name): name for name in stored}
    if names and all(name.startswith(LIGHTNING_PREFIX) for name in names):
        names = {name.removeprefix(LIGHTNING_PREFIX): stored for name, stored in names.items()}
    return names


def own_config(config: bytes | str | dict[str, Any] | None, source: str) -> dict[str, Any] | None:
    """Validate a config written by this repository.

    Args:
        config: JSON text, or the decoded dict. None: no config.
        source: Name of the config for messages.

    Returns:
        Fields of `VGGTConfig`. None if the config is missing or from another program.

    Raises:
        ValueError: If the JSON is invalid, or the fields are not a valid network configuration.
    """
    if config is None:
        return None
    if isinstance(config, (bytes, str)):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source}: expected JSON, got broken text ({error}). Write the file again.") from error
        if not isinstance(config, dict):
            raise ValueError(f"{source}: expected a JSON object, got {json.dumps(config)[:40]}. Write the file again.")
    if not isinstance(config, dict) or config.get("model_type") != CONFIG_MODEL_TYPE:
        return None
    try:
        return VGGTConfig.of({name: value for name, value in config.items() if name != "model_type"}).as_dict()
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def some(names: Iterable[str], most: int = 10) -> str:
    """Join at most `most` names for a message, and append the number of omitted names."""
    names = list(names)
    return ", ".join(names[:most]) + (f", … ({len(names) - most} more)" if len(names) > most else "")
