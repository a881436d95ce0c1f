"""Patch encoder of VGGT-Omega: DINOv3 vision transformer (arXiv 2508.10104).

N images · C channels · h×w patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamvggt.layers.block import Block
from streamvggt.layers.vision_transformer import PatchEmbed
from streamvggt.model.omega.config import OmegaConfig
from streamvggt.model.omega.rotation import CenteredRotation


class OmegaEncoder(nn.Module):
    """Encode images separately. All blocks use rotary positions instead of a position embedding."""

    def __init__(self, config: OmegaConfig, attention: str = "sdpa"):
        super().__init__()
        dim = config.embed_dim
        self.head_width = dim // config.encoder_num_heads
        self.patch_embed = PatchEmbed(config.patch_size, dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.register_tokens = nn.Parameter(torch.randn(1, config.num_storage, dim) * 0.02)
        # Part of the published files. Only the pre-training of the encoder uses it.
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(dim, config.encoder_num_heads, layer_scale=1.0, attention=attention)
            for _ in range(config.encoder_depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalized images. (N, 3, H, W) → (N, h·w, C)"""
        patch_tokens, _ = self.patch_embed(images)
        grid = tuple(patch_tokens.shape[-2:])
        special = torch.cat([self.cls_token, self.register_tokens], 1)
        num_special_tokens = special.shape[1]
        x = torch.cat([special.expand(len(patch_tokens), -1, -1).to(patch_tokens.dtype), patch_tokens.flatten(2).mT], 1)
        rotation = CenteredRotation(
            grid,
            num_special_tokens,
            self.head_width,
            device=x.device,
            dtype=torch.promote_types(x.dtype, torch.float32),
        )
        for block in self.blocks:
            x = block(x, rotation)
        return self.norm(x)[:, num_special_tokens:]
