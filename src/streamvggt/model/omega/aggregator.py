"""Aggregator of VGGT-Omega: encoder, then alternating frame and inter-frame blocks.

B batch · S frames · P tokens of a frame · C channels · H×W pixels · h×w patches.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from streamvggt.layers.block import Block
from streamvggt.model.aggregator import IMAGE_MEAN, IMAGE_STD
from streamvggt.model.omega.config import OmegaConfig
from streamvggt.model.omega.encoder import OmegaEncoder
from streamvggt.model.omega.rotation import CenteredRotation


class OmegaAggregator(nn.Module):
    """Alternating attention within and among frames. The tokens of a frame are [camera (1), registers, patches (h·w)].

    Frame blocks rotate queries and keys of patches by their positions; inter-frame blocks use no positions. A register
    block processes only the special tokens (camera and registers) of all frames and leaves patches unchanged.
    """

    def __init__(self, config: OmegaConfig, attention: str = "sdpa", layer_scale: float = 0.01):
        super().__init__()
        dim = config.embed_dim
        self.patch_size = config.patch_size
        self.head_width = dim // config.num_heads
        self.num_special_tokens = 1 + config.num_registers
        self.register_blocks = frozenset(config.register_blocks)
        self.patch_embed = OmegaEncoder(config, attention)
        block = {"mlp_ratio": config.mlp_ratio, "layer_scale": layer_scale, "qk_norm": True, "attention": attention}
        self.frame_blocks = nn.ModuleList(Block(dim, config.num_heads, **block) for _ in range(config.depth))
        self.global_blocks = nn.ModuleList(Block(dim, config.num_heads, **block) for _ in range(config.depth))
        # Entry 0: first frame of the sequence, whose camera defines the world. Entry 1: all other frames.
        self.camera_token = nn.Parameter(torch.randn(1, 2, 1, dim) * 1e-3)
        self.register_token = nn.Parameter(torch.randn(1, 2, config.num_registers, dim) * 1e-3)

    def forward(self, images: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """Compute the tokens of all frames after selected layers.

        Args:
            images: RGB in [0, 1]. (B, S, 3, H, W)
            layers: Layers to return, counted from 0.

        Returns:
            Per layer: outputs of its frame block and of its inter-frame block, concatenated. (B, S, P, 2C)
        """
        batch, num_frames, _, height, width = images.shape
        patch_tokens = self._encode(images)  # (B, S, h·w, C)
        special = torch.cat([self.camera_token, self.register_token], 2).to(
            patch_tokens.dtype
        )  # (1, 2, 1 + registers, C)
        kind = [0] + [1] * (num_frames - 1)
        x = torch.cat([special[:, kind].expand(batch, -1, -1, -1), patch_tokens], 2)  # (B, S, P, C)
        rotation = CenteredRotation(
            (height // self.patch_size, width // self.patch_size),
            self.num_special_tokens,
            self.head_width,
            device=x.device,
            dtype=torch.promote_types(x.dtype, torch.float32),
        )
        tokens = {}
        for layer, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            within = frame_block(x.flatten(0, 1), rotation).unflatten(0, (batch, num_frames))
            num_attending = self.num_special_tokens if layer in self.register_blocks else within.shape[2]
            across = global_block(within[:, :, :num_attending].flatten(1, 2)).unflatten(1, (num_frames, -1))
            x = torch.cat([across, within[:, :, num_attending:]], 2)
            if layer in layers:
                tokens[layer] = torch.cat([within, x], -1)
        return tokens

    def _encode(self, images: Tensor) -> Tensor:
        """Encode each image separately. (B, S, 3, H, W) in [0, 1] → (B, S, h·w, C)"""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
        normalized = ((images - mean) / std).to(self.camera_token.dtype)
        return self.patch_embed(normalized.flatten(0, 1)).unflatten(0, images.shape[:2])
