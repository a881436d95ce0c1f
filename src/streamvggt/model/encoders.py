"""Table of the patch encoders. A new encoder is a module and an entry in `ENCODERS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from streamvggt.layers.vision_transformer import VisionTransformer


@dataclass(frozen=True)
class EncoderEntry:
    """Entry of the table.

    Args:
        build: Function of the `VGGTConfig` and the keyword arguments `attention` (kernel) and
            `activation_checkpointing` that returns the encoder: a module from images, normalized with the ImageNet
            statistics (N, 3, H, W), to patch features (N, h·w, C) with C = `embed_dim`. Raises ValueError if the
            configuration is not supported.
        patch_size: Side of a patch in pixels, if the configuration does not set `patch_size`.
    """

    build: Callable[..., nn.Module]
    patch_size: int


def build_dinov2(config: Any, **options) -> VisionTransformer:
    """Build the encoder of VGGT: DINOv2 with registers."""
    return VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        dim=config.embed_dim,
        depth=config.encoder_depth,
        num_heads=config.encoder_num_heads,
        mlp_ratio=config.mlp_ratio,
        xfeat=config.xfeat,
        stem_width=config.stem_width,
        **options,
    )


ENCODERS: dict[str, EncoderEntry] = {"dinov2": EncoderEntry(build_dinov2, patch_size=14)}
"""Encoders by name, the values of `encoder` in the configuration."""
