"""Aggregator: patch encoder and alternating frame and global attention (VGGT, arXiv 2503.11651, Sec. 3.2).

B batch · S frames · P tokens of a frame · C channels · H×W pixels · h×w patches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from streamvggt.layers.attention import AttentionPattern, full_pattern
from streamvggt.layers.block import Block
from streamvggt.layers.rope import RoPE2D
from streamvggt.layers.time_rotation import TimeRotation
from streamvggt.layers.xfeat import XFeat, fine_maps
from streamvggt.model.encoders import ENCODERS

GlobalRotation = Literal["space", "time"]

# ImageNet statistics per RGB channel, as in the pre-training of the encoder.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class Aggregator(nn.Module):
    """Compute frame tokens with alternating frame and global attention.

    The tokens of a frame are [camera (1), registers (4), scale (1, only with scale frames), patches (h·w)]. The caller
    selects the attention pattern of each global block.

    Reference: VGGT, arXiv 2503.11651, Sec. 3.2.
    """

    num_registers = 4
    num_special_tokens = 1 + num_registers  # of a network without scale frames

    def __init__(
        self,
        *,
        encoder: nn.Module,
        patch_size: int = 14,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        layer_scale: float = 0.01,
        attention: str = "sdpa",
        activation_checkpointing: bool = False,
        scale_frames: int = 0,
        global_rotation: GlobalRotation = "space",
    ):
        super().__init__()
        self.scale_frames = scale_frames
        self.global_rotation = global_rotation
        self.embed_dim = embed_dim
        self.patch_size = patch_size
        self.head_width = embed_dim // num_heads
        self.patch_embed = encoder
        block = {
            "mlp_ratio": mlp_ratio,
            "layer_scale": layer_scale,
            "qk_norm": True,
            "attention": attention,
            "activation_checkpointing": activation_checkpointing,
        }
        self.frame_blocks = nn.ModuleList(Block(embed_dim, num_heads, **block) for _ in range(depth))
        self.global_blocks = nn.ModuleList(Block(embed_dim, num_heads, **block) for _ in range(depth))
        # Entry 0: first frame of the sequence, whose camera defines the world. Entry 1: all other frames.
        self.camera_token = nn.Parameter(torch.randn(1, 2, 1, embed_dim) * 1e-6)
        self.register_token = nn.Parameter(torch.randn(1, 2, self.num_registers, embed_dim) * 1e-6)
        if scale_frames:  # entry 0: first `scale_frames` frames of a stream
            self.num_special_tokens = Aggregator.num_special_tokens + 1
            self.scale_token = nn.Parameter(torch.randn(1, 2, 1, embed_dim) * 1e-6)

    @classmethod
    def from_config(cls, config: Any, *, layer_scale: float, **kernel) -> Aggregator:
        """Build the aggregator and its patch encoder.

        Args:
            config: The `VGGTConfig`.
            layer_scale: Initial LayerScale factor of the frame and global blocks.
            kernel: `attention` and `activation_checkpointing` of all blocks.
        """
        return cls(
            encoder=ENCODERS[config.encoder].build(config, **kernel),
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            layer_scale=layer_scale,
            scale_frames=config.scale_frames,
            global_rotation=config.global_rotation,
            **kernel,
        )

    @property
    def depth(self) -> int:
        """Number of frame blocks, and of global blocks."""
        return len(self.global_blocks)

    def encode_patches(self, images: Tensor) -> Tensor:
        """Encode each image separately.

        Args:
            images: RGB in [0, 1]. (B, S, 3, H, W)

        Returns:
            Patch features. M additional channels for the dense heads, if the encoder has an XFeat embedding.
            (B, S, h·w, C + M)
        """
        channels = zip(images.unbind(2), IMAGE_MEAN, IMAGE_STD, strict=True)
        normalized = torch.stack([(channel - mean) / std for channel, mean, std in channels], 2)
        features = self.patch_embed(normalized.to(self.camera_token.dtype).flatten(0, 1))
        return features.unflatten(0, images.shape[:2])

    def patch_features(self, encoded: Tensor) -> Tensor:
        """Return the features of `encode_patches` without the channels for the dense heads. (…, C + M) → (…, C)"""
        return encoded[..., : self.embed_dim]

    def fine_maps(self, encoded: Tensor, image_size: tuple[int, int]) -> list[Tensor]:
        """Unpack the XFeat maps for the dense heads.

        Args:
            encoded: Output of `encode_patches` for N images. (N, h·w, C + M)
            image_size: Height and width in pixels.

        Returns:
            Maps from fine to coarse. (N, channels, h·k, w·k) each
        """
        grid = image_size[0] // self.patch_size, image_size[1] // self.patch_size
        return fine_maps(encoded[..., self.embed_dim :], XFeat.fine_channels, self.patch_size, grid)

    def forward(
        self,
        patch_tokens: Tensor,
        grid: tuple[int, int],
        *,
        patterns: Sequence[AttentionPattern] | None = None,
        layers: Collection[int] | None = None,
        is_first_frame: bool | Sequence[bool] = True,
        mlp_hook: Callable[[int, Tensor], None] | None = None,
        times: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Compute the frame tokens of selected layers.

        Args:
            patch_tokens: Output of `encode_patches`. (B, S, h·w, C + M)
            grid: Patch rows and columns h, w.
            patterns: Attention pattern of each global block. None: full attention.
            layers: Layers to return, counted from 0. None: the last layer.
            is_first_frame: Whether the first of these frames is the first frame of its sequence. One value for the
                batch, or one per batch entry.
            mlp_hook: Function of the layer and the MLP residual of its frame block (B·S, P, C).
            times: Number of earlier stored frames of each frame, for global_rotation="time". None: 0, 1, … (B or 1, S)

        Returns:
            Per layer: outputs of its frame block and of its global block, concatenated. (B, S, P, 2C)
        """
        num_frames = patch_tokens.shape[1]
        patterns = patterns or [full_pattern] * self.depth
        layers = {self.depth - 1} if layers is None else layers
        patch_tokens = self.patch_features(patch_tokens)
        x = torch.cat([self._special_tokens(patch_tokens, is_first_frame), patch_tokens], 2)  # (B, S, P, C)
        sizes = grid, self.num_special_tokens, self.head_width
        options = {"device": x.device, "dtype": torch.promote_types(x.dtype, torch.float32)}
        rotation = rotation_across = RoPE2D(*sizes, **options)
        if self.global_rotation == "time":
            rotation_across = TimeRotation(
                torch.arange(num_frames)[None] if times is None else times, *sizes, **options
            )
        tokens = {}
        for layer, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            shown = partial(mlp_hook, layer) if mlp_hook is not None else None
            within = frame_block(x.flatten(0, 1), rotation, mlp_hook=shown).unflatten(0, (-1, num_frames))
            across = global_block(within.flatten(1, 2), rotation_across, patterns[layer])
            x = across.unflatten(1, (num_frames, -1))  # (B, S, P, C)
            if layer in layers:
                tokens[layer] = torch.cat([within, x], -1)
        return tokens

    def _special_tokens(self, patch_tokens: Tensor, is_first_frame: bool | Sequence[bool]) -> Tensor:
        """Return the camera, register and scale tokens of each frame. (B, S, 5 or 6, C)"""
        batch, num_frames = patch_tokens.shape[:2]
        both = torch.cat([self.camera_token, self.register_token], 2).to(patch_tokens.dtype)  # (1, 2, 5, C)

        def of_sequences(starts: bool, number: int) -> Tensor:
            first = both[:, :1].expand(number, int(starts), -1, -1)
            later = both[:, 1:].expand(number, num_frames - int(starts), -1, -1)
            tokens = torch.cat([first, later], 1)
            if not self.scale_frames:
                return tokens
            num_first = min(self.scale_frames, num_frames) if starts else 0
            scale = self.scale_token.to(patch_tokens.dtype)
            first = scale[:, :1].expand(number, num_first, -1, -1)
            later = scale[:, 1:].expand(number, num_frames - num_first, -1, -1)
            return torch.cat([tokens, torch.cat([first, later], 1)], 2)

        if isinstance(is_first_frame, bool):
            return of_sequences(is_first_frame, batch)
        return torch.cat([of_sequences(starts, 1) for starts in is_first_frame])
