"""Load networks: files, folders and the Hugging Face Hub.

A checkpoint contains tensors with the names of the released networks (1,797 tensors for the full network). No code in
a file is executed: files are safetensors, or loaded with `torch.load(weights_only=True)`. The network configuration
comes from the config that this repository writes next to or into its files, otherwise from the tensor shapes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from streamvggt.layers.vision_transformer import VisionTransformer, start_from_sines
from streamvggt.model.loading import load_network
from streamvggt.model.random_networks import init_seeded
from streamvggt.model.threads import set_threads
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights_file import open_checkpoint, some


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
    return load_network(
        VGGT.build,
        name_or_path,
        causal=causal,
        heads=heads,
        device=device,
        dtype=dtype,
        attention=attention,
        activation_checkpointing=activation_checkpointing,
        **config,
    )


def load_with_threads(name_or_path: str | os.PathLike, **options) -> VGGT:
    """Load a model as `load_model` does, and set the number of CPU threads for its size."""
    model = load_model(name_or_path, **options)
    set_threads(model.config.embed_dim)
    return model


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
    model = init_seeded(VGGT.build, {"causal": False, **arguments}, "init_model", seed)
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
        raise ValueError(
            f"{path} is not a DINOv2 encoder of this size. {len(wrong)} tensors differ: {some(sorted(wrong))}"
        )
    encoder.load_state_dict({name: checkpoint.read(name) for name in expected})
