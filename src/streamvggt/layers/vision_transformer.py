"""Patch encoder: DINOv2 vision transformer with registers (arXiv 2304.07193, 2309.16588)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamvggt.layers.block import Block
from streamvggt.layers.xfeat import XFeatEmbed


class PatchEmbed(nn.Module):
    """Strided convolution from images to patch tokens."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute patch tokens (B, C, h, w) from images (B, 3, H, W). The list of fine maps is empty."""
        return self.proj(images), []


class VisionTransformer(nn.Module):
    """Encode images separately to patch features.

    B images · C channels · h×w patches.

    Reference: DINOv2, arXiv 2304.07193. Registers, arXiv 2309.16588.
    """

    num_registers = 4

    def __init__(
        self,
        *,
        image_size: int = 518,
        patch_size: int = 14,
        dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        attention: str = "sdpa",
        xfeat: bool = False,
        stem_width: int = 0,
        activation_checkpointing: bool = False,
    ):
        """Build the encoder.

        Args:
            image_size: Side in pixels of the square training image of the position embedding.
            patch_size: Side of a patch in pixels.
            dim: Channels C.
            depth: Number of blocks.
            num_heads: Attention heads per block.
            mlp_ratio: Hidden width of MLPs relative to C.
            attention: Attention kernel, see `get_kernel`.
            xfeat: Compute patch tokens with `XFeatEmbed`.
            stem_width: `stem_width` of `XFeatEmbed`.
            activation_checkpointing: Recompute activations in the backward pass to save memory.
        """
        super().__init__()
        grid = image_size // patch_size
        self.grid = (grid, grid)
        self.patch_embed = XFeatEmbed(patch_size, dim, stem_width) if xfeat else PatchEmbed(patch_size, dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 1e-6)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + grid * grid, dim) * 0.02)
        self.register_tokens = nn.Parameter(torch.randn(1, self.num_registers, dim) * 1e-6)
        # Part of the released checkpoints. Only the pre-training of the encoder uses it.
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                layer_scale=1.0,
                norm_eps=1e-6,
                attention=attention,
                activation_checkpointing=activation_checkpointing,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalized images.

        Args:
            images: Images normalized per channel. (B, 3, H, W)

        Returns:
            Patch features. With `xfeat`, M more channels: the maps for the dense heads, packed by patch.
            (B, h·w, C + M)
        """
        patches, skips = self.patch_embed(images)
        class_position, patch_position = self._pos_embed(patches.shape[-2:])
        patches = patches.flatten(2).transpose(1, 2) + patch_position  # (B, h·w, C)
        batch = patches.shape[0]
        x = torch.cat(
            [
                (self.cls_token + class_position).expand(batch, -1, -1),
                self.register_tokens.expand(batch, -1, -1),
                patches,
            ],
            1,
        )
        for block in self.blocks:
            x = block(x)
        features = self.norm(x)[:, 1 + self.num_registers :]
        return (
            torch.cat([features, *(skip.flatten(2).mT.to(features.dtype) for skip in skips)], -1) if skips else features
        )

    def _pos_embed(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the position embeddings of the class token (1, 1, C) and of a patch grid (1, h·w, C)."""
        of_class, of_patches = self.pos_embed.split([1, self.pos_embed.shape[1] - 1], 1)
        if tuple(grid) != self.grid:
            square = of_patches.unflatten(1, self.grid).permute(0, 3, 1, 2).float()  # (1, C, h, w)
            resized = F.interpolate(square, size=tuple(grid), mode="bicubic", antialias=True)
            of_patches = resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return of_class, of_patches


@torch.no_grad()
def start_from_sines(encoder: VisionTransformer, amplitude: float = 0.5) -> None:
    """Initialize the position embeddings of patches with sines and cosines of row and column (MAE, arXiv 2111.06377).

    A random embedding hardly encodes the position, so the network would first have to learn it.

    Args:
        encoder: Encoder to modify in place.
        amplitude: Amplitude of the sines and cosines.
    """
    dim = encoder.pos_embed.shape[-1]
    frequency = 100.0 ** -torch.linspace(0, 1, dim // 4)  # radians per patch
    axes = []
    for count in encoder.grid:
        angle = (torch.arange(count) - (count - 1) / 2)[:, None] * frequency
        axes.append(torch.cat([angle.sin(), angle.cos()], -1))  # (count, dim / 2)
    rows, columns = axes
    positions = torch.cat([rows[:, None].expand(-1, len(columns), -1), columns.expand(len(rows), -1, -1)], -1)
    encoder.pos_embed[:, 1:, : positions.shape[-1]] = amplitude * positions.flatten(0, 1)
