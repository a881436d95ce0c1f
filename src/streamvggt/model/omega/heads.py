"""Heads of VGGT-Omega: camera head without iterations, and depth head with pixel shuffle.

B batch · S frames · C channels of a head (twice the aggregator's) · F features · H×W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamvggt.layers.block import Block, Mlp
from streamvggt.model.heads.camera import POSE_ENC_DIM
from streamvggt.model.heads.dpt import FeatureFusion, LevelFusion, Reassembly, ResidualUnit, interpolate
from streamvggt.model.omega.config import OmegaConfig

MIN_FOV = 0.01
"""Added to every field of view, in radians."""


class OmegaCameraHead(nn.Module):
    """Predict the pose encodings of all frames from their special tokens, without iterations."""

    def __init__(self, config: OmegaConfig, attention: str = "sdpa", layer_scale: float = 0.01):
        super().__init__()
        dim = 2 * config.embed_dim
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(
            Block(dim, config.camera_num_heads, layer_scale=layer_scale, attention=attention)
            for _ in range(config.camera_trunk_depth)
        )
        self.trunk_norm = nn.LayerNorm(dim)
        self.pose_branch = Mlp(dim, dim // 2, POSE_ENC_DIM)
        # Initialize to the identity pose and a field of view of 1 rad, so that untrained outputs are valid cameras.
        with torch.no_grad():
            self.pose_branch.fc2.weight.mul_(0.1)
            self.pose_branch.fc2.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 1, 1]))

    def forward(self, special: Tensor) -> Tensor:
        """Predict cameras.

        Args:
            special: Camera and register tokens. (B, S, 1 + registers, C)

        Returns:
            Translation, quaternion, fields of view ≥ `MIN_FOV` in radians. See `Prediction.pose_enc`. (B, S, 9)
        """
        x = self.token_norm(special).flatten(1, 2)
        for block in self.trunk:
            x = block(x)
        raw = self.pose_branch(self.trunk_norm(x.unflatten(1, special.shape[1:3])[:, :, 0]))
        return torch.cat([raw[..., :7], F.relu(raw[..., 7:]) + MIN_FOV], -1)


class PlainResidualUnit(ResidualUnit):
    """Two convolutions and a skip connection of x itself, because the ReLU of VGGT-Omega is not in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit. (N, F, h, w) → (N, F, h, w)"""
        return self.conv2(F.relu(self.conv1(F.relu(x)))) + x


class PlainFeatureFusion(FeatureFusion):
    """Fuse with plain residual units, in the operation order of the reference implementation.

    The order of `FeatureFusion` changes the fourth digit of depths near 100.
    """

    unit = PlainResidualUnit

    def forward(self, x: Tensor, skip: Tensor | None, size: Sequence[int]) -> Tensor:
        """Fuse a level of equal size, if given, and resize. (N, F, h, w) → (N, F, *size)"""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        x = self.resConfUnit2(x)
        return self.out_conv(x if tuple(x.shape[-2:]) == tuple(size) else interpolate(x, size))


class PlainLevelFusion(LevelFusion):
    """Fuse to the resolution of the finest level: 4 cells per patch side."""

    fusion = PlainFeatureFusion
    upscale = 1


class OmegaDepthHead(Reassembly):
    """Predict depth and confidence: DPT on the tokens of four layers, then pixel shuffle."""

    def __init__(self, config: OmegaConfig):
        super().__init__(2 * config.embed_dim, config.dpt_channels, patch_size=config.patch_size)
        self.scratch = PlainLevelFusion(config.dpt_features, config.dpt_channels)
        self.pixels_per_cell = config.patch_size // 4
        self.proj = nn.Conv2d(config.dpt_features, self.pixels_per_cell**2, 1)
        self.proj_conf = nn.Conv2d(config.dpt_features, self.pixels_per_cell**2, 1)

    def forward(self, tokens: Sequence[Tensor], image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Predict maps at image resolution.

        Args:
            tokens: Patch tokens of the four layers. (N, h·w, C) each
            image_size: H, W in pixels.

        Returns:
            depth: Distance along the optical axis, above 0. (N, H, W, 1)
            confidence: Above 1. (N, H, W)
        """
        x = self._with_position(self.scratch.fuse(self.levels(tokens, image_size)), image_size)
        depth, confidence = (F.pixel_shuffle(proj(x), self.pixels_per_cell) for proj in (self.proj, self.proj_conf))
        return depth.exp().movedim(1, -1), 1 + confidence[:, 0].exp()
