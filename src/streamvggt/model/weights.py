"""Load and save networks: files, folders and the Hugging Face Hub.

A checkpoint contains tensors with the names of the released networks (1,797 tensors for the full network). No code in
a file is executed: files are safetensors, or loaded with `torch.load(weights_only=True)`. The network configuration
comes from the config that this repository writes next to or into its files, otherwise from the tensor shapes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from streamvggt.choices import RELEASED_HEADS
from streamvggt.files import atomic_write
from streamvggt.layers.attention import check_kernel
from streamvggt.layers.vision_transformer import VisionTransformer, start_from_sines
from streamvggt.model.building import build_converted
from streamvggt.model.checkpoints import KnownCheckpoint
from streamvggt.model.device import exact_convolutions, to_channels_last_layout
from streamvggt.model.infer_config import infer_config
from streamvggt.model.random_networks import build_model, init_random_model, init_seeded, is_random
from streamvggt.model.tensor_check import check_tensors, heads_in
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights_file import (
    CONFIG_MODEL_TYPE,
    CONFIG_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    open_checkpoint,
    some,
)
from streamvggt.model.weights_path import resolve_path

FLOAT32_PREFIXES = ("track_head.tracker.",)
"""Parts that stay float32 in half-precision networks: the tracker embeds pixels as angles of up to 1000 radians."""


def load_model(
    name_or_path: str | os.PathLike,
    *,
    causal: bool | None = None,
    heads: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    activation_checkpointing: bool = False,
    **config,
) -> VGGT:
    """Load a network for inference and check its weights strictly.

    Tensors are converted one at a time, so memory contains one copy of the weights.

    Args:
        name_or_path: One of:

            - A .safetensors, .pt, .pth, .ckpt or .bin file: a state dict, or a training checkpoint with an entry
              "model" or "state_dict".
            - The .index.json of a sharded file.
            - A folder with config.json and model.safetensors, sharded or not.
            - A Hugging Face id, for example "lch01/StreamVGGT".
            - "tiny" or "tiny-vggt": the bundled tiny student or teacher.
            - "random:small" or "random:full": random weights with a fixed seed, for speed measurements.
        causal: True (StreamVGGT) or False (VGGT). None: from the config or the table of published checkpoints,
            otherwise True.
        heads: Heads to build and load. None: heads of the config, otherwise all heads with tensors in the file.
        device: Device of the weights.
        dtype: Number format of the weights. The tracker stays float32. float32 on CUDA disables TF32 convolutions in
            this process.
        attention: Attention kernel: "sdpa", "math" or "flash".
        activation_checkpointing: Recompute block activations in the backward pass to save memory.
        config: Fields of `VGGTConfig` that tensor shapes do not determine, for example camera_num_heads=8.

    Returns:
        The network in evaluation mode.

    Raises:
        FileNotFoundError: If there are no weights with this name.
        ValueError: If the file belongs to another network, contains code, or has missing, extra or wrong-shaped
            tensors.
    """
    check_kernel(attention, torch.device(device), dtype)
    options = {"attention": attention, "activation_checkpointing": activation_checkpointing}
    name = os.fspath(name_or_path)
    if torch.device(device).type == "cuda" and dtype == torch.float32:
        exact_convolutions()

    def placed(tensor_name: str, tensor: Tensor, copy: bool = False) -> Tensor:
        wanted = torch.float32 if tensor_name.startswith(FLOAT32_PREFIXES) else dtype
        return to_channels_last_layout(tensor, torch.device(device), wanted, copy=copy)

    if is_random(name):
        sizes = {"causal": True if causal is None else causal, "heads": heads or RELEASED_HEADS, **config}
        return build_converted(lambda: init_random_model(name, {**sizes, **options}), placed).eval()
    path, known = resolve_path(name)
    checkpoint = open_checkpoint(path)
    found = _network_config(checkpoint, known, config, causal, heads)
    with torch.device("meta"):
        model = build_model({**found, **options}, checkpoint.source)
    check_tensors(model, checkpoint)
    # Copy memory-mapped tensors, so that the network does not depend on the file.
    loaded = {name: placed(name, checkpoint.read(name), copy=True) for name in model.state_dict()}
    model.load_state_dict(loaded, assign=True)
    return model.eval()


def _network_config(
    checkpoint: Checkpoint,
    known: KnownCheckpoint | None,
    config: Mapping[str, Any],
    causal: bool | None,
    heads: Sequence[str] | None,
) -> dict[str, Any]:
    """Combine the fields of the file, of the published checkpoint and of the caller, who has priority."""
    found = checkpoint.config or infer_config(checkpoint.shapes, checkpoint.source, config)
    published = {"causal": known.causal, **known.options} if known else {"causal": True}
    found = {**published, **found, **config}
    if causal is not None:
        found["causal"] = causal
    if heads is not None:
        found["heads"] = heads
    elif "heads" not in found:
        found["heads"] = heads_in(checkpoint)
    return found


def init_model(
    *,
    seed: int = 0,
    encoder_weights: str | os.PathLike | None = None,
    xfeat_weights: str | os.PathLike | None = None,
    sharpness: float = 1.0,
    **arguments,
) -> VGGT:
    """Initialize a network for training from scratch.

    Args:
        seed: Seed of the weights. The global random state is unchanged.
        encoder_weights: Checkpoint of the patch encoder, for example DINOv2. None: random weights.
        xfeat_weights: Published XFeat checkpoint, requires `xfeat=True`. None: random weights.
        sharpness: Factor on the normalized queries of the global blocks. With 1, attention at initialization is too
            uniform to select one patch among hundreds.
        arguments: Arguments of `VGGT`.

    Raises:
        ValueError: If an argument is invalid, or a checkpoint does not match the network.
    """
    model = init_seeded({"causal": False, **arguments}, "init_model", seed)
    if isinstance(model.aggregator.patch_embed, VisionTransformer):
        start_from_sines(model.aggregator.patch_embed)
    with torch.no_grad():
        for block in model.aggregator.global_blocks:
            block.attn.q_norm.weight.mul_(sharpness)
    if encoder_weights is not None:
        load_encoder(model, encoder_weights)
    if xfeat_weights is not None:
        if not model.config.xfeat:
            raise ValueError("xfeat_weights: expected a network with xfeat=True, got one without")
        checkpoint = open_checkpoint(Path(xfeat_weights))
        tensors = {name: checkpoint.stored(name) for name in checkpoint.shapes}  # including integer batch counters
        model.aggregator.patch_embed.patch_embed.xfeat.load_published(tensors)
    return model


def save_model(model: VGGT, folder: str | os.PathLike, state: Mapping[str, Tensor] | None = None) -> None:
    """Write config.json and model.safetensors to `folder`, each atomically.

    Args:
        model: Network to save.
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


def load_encoder(model: VGGT, path: str | os.PathLike) -> None:
    """Load the patch encoder from its checkpoint, for example dinov2_vitl14_reg4_pretrain.pth (DINOv2 with registers).

    Raises:
        ValueError: If the file has another architecture or size. The message lists the tensors that do not match.
    """
    encoder = model.aggregator.patch_embed
    checkpoint = open_checkpoint(Path(path))
    expected = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    wrong = [name for name in {*expected, *checkpoint.shapes} if expected.get(name) != checkpoint.shapes.get(name)]
    if wrong:
        raise ValueError(f"{path} is no DINOv2 encoder of this size; {len(wrong)} do not fit: {some(sorted(wrong))}")
    encoder.load_state_dict({name: checkpoint.read(name) for name in expected})
