"""Infer the network configuration from tensor shapes, for files without a config."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from streamvggt.layers.stem import LEVELS
from streamvggt.model.weights_file import some

Shapes = Mapping[str, tuple[int, ...]]

NEEDED = (
    "aggregator.camera_token",
    "aggregator.patch_embed.pos_embed",
    "aggregator.patch_embed.patch_embed.proj.weight",
    "aggregator.global_blocks.0.attn.q_norm.weight",
    "aggregator.global_blocks.0.mlp.fc1.weight",
)
LINGBOT_OPTIONS = {"scale_frames": 8, "global_rotation": "time", "pose": "world_from_camera"}
"""Options of LingBot-Map, which a scale token identifies."""


def infer_config(shapes: Shapes, source: str = "the file", known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Infer the network configuration from tensor shapes.

    Shapes do not determine the attention heads of encoder, camera trunk and tracker, the iterations of camera head and
    tracker, the tracker's window radius, and `dpt_layers`. These fields get the values of the released networks. If
    the network does not have the released size, a warning lists the assumed values. A scale token identifies
    LingBot-Map, which has 8 scale frames.

    Args:
        shapes: Shape per tensor name.
        source: Name of the file for messages.
        known: Fields given by the caller, excluded from the assumptions.

    Returns:
        Fields of `VGGTConfig`.

    Raises:
        ValueError: If the tensors do not belong to this network.
    """
    _validate_names(shapes, source)
    known = known or {}
    found = _trunk_sizes(shapes)
    depth = found["depth"]
    assumed: dict[str, Any] = {"encoder_num_heads": max(found["embed_dim"] // 64, 1)}
    if trunk_depth := _count(shapes, "camera_head.trunk."):
        found["camera_trunk_depth"] = trunk_depth
        assumed |= {"camera_num_heads": 16, "camera_iterations": 4}
    for head in ("depth_head", "point_head", "track_head.feature_extractor"):
        if f"{head}.scratch.layer1_rn.weight" in shapes:
            if head != "track_head.feature_extractor":
                found["dpt_features"] = shapes[f"{head}.scratch.layer1_rn.weight"][0]
            found["dpt_channels"] = tuple(shapes[f"{head}.projects.{level}.weight"][0] for level in range(4))
            # The released network has 24 layers and reads 4, 11, 17 and 23, which are not evenly spaced.
            even = tuple(depth * quarter // 4 - 1 for quarter in range(1, 5))
            assumed["dpt_layers"] = (4, 11, 17, 23) if depth == 24 else even
    if "track_head.tracker.corr_mlp.fc1.weight" in shapes:
        found |= _tracker_sizes(shapes, known.get("track_radius", 4))
        assumed |= {"track_radius": 4, "track_num_heads": 8, "track_iterations": 4}
    assumed = {name: value for name, value in assumed.items() if name not in known}
    if assumed and (found["embed_dim"], depth) != (1024, 24):
        values = ", ".join(f"{name}={value}" for name, value in assumed.items())
        warnings.warn(
            f"{source} has no config and its shapes do not tell {', '.join(assumed)}; taken as {values}. "
            "Give load_model the right values, or keep the config.json that save_pretrained writes",
            stacklevel=4,
        )
    return {**assumed, **found}


def _validate_names(shapes: Shapes, source: str) -> None:
    """Check that the tensors belong to VGGT or StreamVGGT with the released encoder.

    Raises:
        ValueError: If the tensors belong to another network.
    """
    if any(name.startswith("aggregator.inter_frame_blocks.") for name in shapes):
        raise ValueError(
            f"{source}: expected VGGT or StreamVGGT, got VGGT-Omega. Use it as a teacher: docs/training.md."
        )
    missing = [name for name in NEEDED if name not in shapes]
    if missing:
        raise ValueError(
            f"{source} does not contain a VGGT network: {missing[0]!r} is missing among its {len(shapes)} tensors "
            f"({some(shapes)})"
        )


def _trunk_sizes(shapes: Shapes) -> dict[str, Any]:
    """Infer the sizes of encoder and aggregator."""
    embed_dim = shapes["aggregator.camera_token"][-1]
    stem = "aggregator.patch_embed.patch_embed.proj"
    stem_width = shapes.get(f"{stem}.downs.0.weight", (0,))[0]
    patch_size = 2**LEVELS * shapes[f"{stem}.proj.weight"][-1] if stem_width else shapes[f"{stem}.weight"][-1]
    found: dict[str, Any] = {
        "embed_dim": embed_dim,
        "patch_size": patch_size,
        "image_size": math.isqrt(shapes["aggregator.patch_embed.pos_embed"][1] - 1) * patch_size,
        "depth": _count(shapes, "aggregator.global_blocks."),
        "num_heads": embed_dim // shapes["aggregator.global_blocks.0.attn.q_norm.weight"][0],
        "mlp_ratio": shapes["aggregator.global_blocks.0.mlp.fc1.weight"][0] / embed_dim,
        "encoder_depth": _count(shapes, "aggregator.patch_embed.blocks."),
        "stem_width": stem_width,
        "xfeat": "aggregator.patch_embed.patch_embed.describe.weight" in shapes,
    }
    if "aggregator.scale_token" in shapes:
        found |= LINGBOT_OPTIONS
    return found


def _tracker_sizes(shapes: Shapes, radius: int) -> dict[str, Any]:
    """Infer the sizes of the tracker from its tensors and its window radius."""
    tracker = "track_head.tracker."
    dim, windows = shapes[tracker + "corr_mlp.fc1.weight"]
    return {
        "track_features": shapes[tracker + "fmap_norm.weight"][0],
        "track_dim": dim,
        "track_depth": _count(shapes, tracker + "updateformer.time_blocks."),
        "track_virtual": shapes[tracker + "updateformer.virual_tracks"][1],
        "track_levels": windows // (2 * radius + 1) ** 2,
    }


def _count(shapes: Shapes, prefix: str) -> int:
    """Count the modules of a list from the names of their tensors."""
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})
