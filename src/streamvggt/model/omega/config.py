"""Sizes of a VGGT-Omega network, and their inference from the shapes in a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

RELEASED_REGISTER_BLOCKS = (2, 6, 9, 14, 20)
ENTRY = "aggregator.inter_frame_blocks."
"""Prefix of tensor names that only VGGT-Omega files contain."""


@dataclass(frozen=True, kw_only=True)
class OmegaConfig:
    """Sizes of a VGGT-Omega. Defaults: the released network with 1.14 B parameters.

    Args:
        register_blocks: Inter-frame blocks that process only the special tokens of all frames.
        num_registers: Register tokens per frame in the aggregator, in addition to the camera token.
        num_storage: Register tokens of the encoder, in addition to the class token.
        dpt_layers: Four input layers of the depth head, counted from 0.

    Raises:
        ValueError: If a value has the wrong type, is out of bounds or contradicts another.
    """

    patch_size: int = 16
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_registers: int = 16
    register_blocks: Sequence[int] = RELEASED_REGISTER_BLOCKS
    encoder_depth: int = 24
    encoder_num_heads: int = 16
    num_storage: int = 4
    camera_trunk_depth: int = 4
    camera_num_heads: int = 16
    dpt_layers: Sequence[int] = (4, 11, 17, 23)
    dpt_features: int = 256
    dpt_channels: Sequence[int] = (256, 512, 1024, 1024)

    def __post_init__(self):
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(entry.default, tuple):
                if not isinstance(value, list | tuple) or not all(_is_whole(each) for each in value):
                    raise ValueError(f"{entry.name}: expected a list of whole numbers, got {value!r}.")
                object.__setattr__(self, entry.name, tuple(value))
            elif not (_is_whole(value) or (entry.name == "mlp_ratio" and isinstance(value, float))) or value <= 0:
                raise ValueError(f"{entry.name}: expected a number above 0, got {value!r}.")
        if self.patch_size % 4:
            raise ValueError(f"patch_size: expected a multiple of 4, got {self.patch_size}.")
        for name, dim in (
            ("num_heads", self.embed_dim),
            ("encoder_num_heads", self.embed_dim),
            ("camera_num_heads", 2 * self.embed_dim),
        ):
            heads, step = getattr(self, name), 1 if name == "camera_num_heads" else 4
            if dim % (step * heads):
                multiple = f"a multiple of {step}" if step > 1 else "whole"
                raise ValueError(f"{name}: expected a number that makes {dim}/{name} {multiple}, got {heads}.")
        for name in ("register_blocks", "dpt_layers"):
            layers = getattr(self, name)
            if len(set(layers)) < len(layers) or not all(0 <= layer < self.depth for layer in layers):
                raise ValueError(f"{name}: expected different layers from 0 to {self.depth - 1}, got {layers}.")
        for name in ("dpt_layers", "dpt_channels"):
            if len(getattr(self, name)) != 4:
                raise ValueError(f"{name}: expected four numbers, got {getattr(self, name)}.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def omega_config(
    shapes: Mapping[str, tuple[int, ...]], source: str = "the file", known: Mapping[str, Any] | None = None
) -> OmegaConfig:
    """Infer the sizes from the shapes in a file.

    Shapes determine every size except `camera_num_heads`, `register_blocks` and `dpt_layers`. These come from `known`,
    else from the released network. If the file has another size, a warning lists the assumed values.

    Args:
        shapes: Shape per tensor name of the published file.
        source: Name of the file for messages.
        known: Fields of `OmegaConfig` given by the caller.

    Raises:
        ValueError: If the tensors belong to another network, or a field is unknown or invalid.
    """
    known = dict(known or {})
    if unknown := sorted(known.keys() - {entry.name for entry in fields(OmegaConfig)}):
        raise ValueError(f"{source}: VGGT-Omega has no size {', '.join(unknown)}.")

    def shape(name: str, num_axes: int) -> tuple[int, ...]:
        if len(shapes.get(name, ())) != num_axes or not all(shapes[name]):
            there = f"of shape {shapes[name]}" if name in shapes else "missing"
            raise ValueError(
                f"{source} does not contain a VGGT-Omega network: among its {len(shapes)} tensors, {name} is {there}."
            )
        return shapes[name]

    def count(prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})

    embed_dim = shape("aggregator.camera_token", 4)[-1]
    depth = count(ENTRY)
    found = {
        "embed_dim": embed_dim,
        "depth": depth,
        "patch_size": shape("aggregator.patch_embed.patch_embed.proj.weight", 4)[-1],
        "num_heads": embed_dim // shape(f"{ENTRY}0.attn.q_norm.weight", 1)[0],
        "mlp_ratio": shape(f"{ENTRY}0.mlp.fc1.weight", 2)[0] / embed_dim,
        "num_registers": shape("aggregator.register_token", 4)[2],
        "encoder_depth": count("aggregator.patch_embed.blocks."),
        "encoder_num_heads": embed_dim // (4 * shape("aggregator.patch_embed.rope_embed.periods", 1)[0]),
        "num_storage": shape("aggregator.patch_embed.storage_tokens", 3)[1],
        "camera_trunk_depth": count("camera_head.trunk."),
        "dpt_features": shape("dense_head.scratch.layer1_rn.weight", 4)[0],
        "dpt_channels": tuple(shape(f"dense_head.projects.{level}.weight", 4)[0] for level in range(4)),
    }
    if wrong := [name for name in found if name in known and known[name] != found[name]]:
        values = ", ".join(f"{name}={known[name]!r} (the file: {found[name]!r})" for name in wrong)
        raise ValueError(f"{source}: expected the sizes of the file, got {values}.")
    assumed = {name: value for name, value in _assumed_sizes(depth).items() if name not in known}
    if assumed and (embed_dim, depth) != (1024, 24):
        values = ", ".join(f"{name}={value}" for name, value in assumed.items())
        warnings.warn(f"{source}: The shapes do not determine {', '.join(assumed)}. Assumed {values}.", stacklevel=3)
    try:
        return OmegaConfig(**{**assumed, **found, **known})
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _assumed_sizes(depth: int) -> dict[str, Any]:
    """Return the sizes that shapes do not determine, as in the released network."""
    return {
        "camera_num_heads": 16,
        "register_blocks": tuple(block for block in RELEASED_REGISTER_BLOCKS if block < depth),
        "dpt_layers": (4, 11, 17, 23) if depth == 24 else tuple(depth * part // 4 - 1 for part in range(1, 5)),
    }
