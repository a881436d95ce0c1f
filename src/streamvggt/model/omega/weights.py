"""Load VGGT-Omega from its published files and check the weights strictly. No code in a file is executed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from streamvggt.layers.attention import check_kernel
from streamvggt.model.device import to_channels_last_layout
from streamvggt.model.omega.config import ENTRY, OmegaConfig, omega_config
from streamvggt.model.omega.network import VGGTOmega
from streamvggt.model.omega.rotation import rotary_periods
from streamvggt.model.random_networks import is_random
from streamvggt.model.shapes_only import shapes_only
from streamvggt.model.tensor_check import list_differences
from streamvggt.model.weights_file import Checkpoint, open_checkpoint
from streamvggt.model.weights_path import resolve_path

RENAMED = {
    "aggregator.global_blocks.": ENTRY,
    "aggregator.patch_embed.register_tokens": "aggregator.patch_embed.storage_tokens",
    "depth_head.": "dense_head.",
    "camera_head.pose_branch.fc1.": "camera_head.camera_branch.0.",
    "camera_head.pose_branch.fc2.": "camera_head.camera_branch.2.",
}
"""Name prefix in this repository → name prefix in published files, where they differ."""
TEXT_HEAD = "text_alignment_head."
FLOAT32_PREFIXES = ("camera_head.", "depth_head.")
"""Parts that stay float32 in a half-precision network, like the reference implementation."""


def load_omega(
    name_or_path: str | os.PathLike,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    **sizes,
) -> VGGTOmega:
    """Load a VGGT-Omega for inference.

    Args:
        name_or_path: A published file such as vggt_omega_1b_512.pt, or "facebook/VGGT-Omega" (gated; log in with
            `hf auth login`). The text head of vggt_omega_1b_256_text.pt is skipped with a warning.
        device: Device of the weights.
        dtype: Number format of encoder and aggregator. The heads stay float32.
        attention: Attention kernel: "sdpa", "math" or "flash".
        sizes: Sizes that the shapes do not determine: `register_blocks`, `dpt_layers`, `camera_num_heads`.

    Returns:
        The network in evaluation mode.

    Raises:
        FileNotFoundError: If there are no weights with this name.
        ValueError: If the file belongs to another network, contains code, or has missing, extra or wrong-shaped
            tensors.
    """
    check_kernel(attention, torch.device(device), dtype)
    checkpoint = open_checkpoint(resolve_path(os.fspath(name_or_path))[0])
    config = omega_config(checkpoint.shapes, checkpoint.source, sizes)
    with shapes_only():
        model = VGGTOmega(attention=attention, **vars(config))
    _check_shapes(published_shapes(model), checkpoint)
    _check_periods(config, checkpoint)
    loaded = {}
    for name in model.state_dict():
        wanted = torch.float32 if name.startswith(FLOAT32_PREFIXES) else dtype
        loaded[name] = to_channels_last_layout(_read(name, checkpoint), torch.device(device), wanted, copy=True)
    model.load_state_dict(loaded, assign=True)
    return model.eval()


def is_omega(name_or_path: str | os.PathLike) -> bool:
    """Return whether a file contains VGGT-Omega.

    Raises:
        FileNotFoundError: If there are no weights with this name.
        ValueError: If the file is damaged or has an unknown format.
    """
    name = os.fspath(name_or_path)
    if is_random(name):
        return False
    return any(tensor.startswith(ENTRY) for tensor in open_checkpoint(resolve_path(name)[0]).shapes)


def published_name(name: str) -> str:
    """Return the published name of a tensor of the network."""
    for ours, theirs in RENAMED.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def published_shapes(model: VGGTOmega) -> dict[str, tuple[int, ...]]:
    """Return the expected names and shapes of a published file, including bias masks and rotary periods."""
    shapes = {published_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    masks = {_mask_name(name): shape for name, shape in shapes.items() if name.endswith(".attn.qkv.bias")}
    return {**shapes, **masks, **{name: (width // 4,) for name, width in _rotated(model.config).items()}}


def _mask_name(bias: str) -> str:
    return f"{bias}_mask"


def _rotated(config: OmegaConfig) -> dict[str, int]:
    """Return the names of the buffers of rotary periods, and their head widths."""
    return {
        "aggregator.patch_embed.rope_embed.periods": config.embed_dim // config.encoder_num_heads,
        "aggregator.rope_embed.periods": config.embed_dim // config.num_heads,
    }


def _read(name: str, checkpoint: Checkpoint) -> Tensor:
    """Read a tensor of the network. Multiply biases of queries, keys and values by their masks."""
    stored = published_name(name)
    tensor = checkpoint.read(stored)
    if not stored.endswith(".attn.qkv.bias"):
        return tensor
    mask = checkpoint.read(_mask_name(stored))
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f"{checkpoint.source}: {_mask_name(stored)}: expected only 0 and 1, got other numbers. "
            "Download the file again."
        )
    return tensor * mask.to(tensor.dtype)


def _check_periods(config: OmegaConfig, checkpoint: Checkpoint) -> None:
    """Check that the stored rotary periods equal the computed periods.

    Raises:
        ValueError: If the periods differ.
    """
    for name, width in _rotated(config).items():
        stored, expected = checkpoint.read(name).float(), rotary_periods(width)
        if not torch.allclose(stored, expected, rtol=1e-4, atol=0):
            raise ValueError(
                f"{checkpoint.source}: {name}: expected periods from {expected[0]:g} to {expected[-1]:g}, got "
                f"{stored[0]:g} to {stored[-1]:g}. The file is of another network."
            )


def _check_shapes(expected: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> None:
    """Compare the tensors of the network and the file. Warn about a skipped text head.

    Raises:
        ValueError: If tensors are missing, extra or wrong-shaped. The message lists them.
    """
    there: dict[str, Any] = {name: of for name, of in checkpoint.shapes.items() if not name.startswith(TEXT_HEAD)}
    differences = list_differences(expected, there)
    if differences:
        header = f"{checkpoint.source}: expected the tensors of VGGT-Omega, got others:"
        raise ValueError("\n".join([header, *differences]))
    if left_out := len(checkpoint.shapes) - len(there):
        warnings.warn(
            f"{checkpoint.source}: Skipped the text head ({left_out} tensors {TEXT_HEAD}*).",
            stacklevel=3,
        )
