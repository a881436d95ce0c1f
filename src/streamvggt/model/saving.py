"""Write networks: a folder with config.json and model.safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from streamvggt.files import atomic_write
from streamvggt.model.weights_file import CONFIG_MODEL_TYPE, CONFIG_NAME, WEIGHTS_NAME


def save_model(model: nn.Module, folder: str | os.PathLike, state: Mapping[str, Tensor] | None = None) -> None:
    """Write config.json and model.safetensors to `folder`, each atomically.

    Args:
        model: Network with the attribute `config`.
        folder: Output folder, created if missing.
        state: State dict, for models that are sharded among processes. None: `model.state_dict()`.
    """
    folder = Path(folder)
    config = json.dumps({"model_type": CONFIG_MODEL_TYPE, **model.config.as_dict()}, indent=2)
    state = model.state_dict() if state is None else state
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_write(folder / WEIGHTS_NAME) as path:
        # Store the config in the file as well, so that the file can be loaded without config.json.
        save_file(tensors, path, metadata={"format": "pt", "config": config})
        sort_metadata(path)
    with atomic_write(folder / CONFIG_NAME) as path:
        path.write_text(config + "\n", encoding="utf-8")


def sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file by name, so that equal weights give bit-exact equal files."""
    with open(path, "rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "the same entries take the same room"
        file.seek(8)
        file.write(text.ljust(length))
