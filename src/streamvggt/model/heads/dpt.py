"""DPT head: frame tokens to depth, points or features per pixel (DPT, arXiv 2103.13413).

N images · C token channels · F features · H×W pixels · h×w patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamvggt.layers.sincos import sincos_embed
from streamvggt.layers.tables import cached_table


class ResidualUnit(nn.Module):
    """Two convolutions with a skip connection of relu(x), because the ReLU of the released network is in place.

    The unit modifies its input. (N, F, h, w) → (N, F, h, w)
    """

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit. (N, F, h, w) → (N, F, h, w)"""
        x = F.relu_(x)
        return self.conv2(F.relu_(self.conv1(x))) + x


class FeatureFusion(nn.Module):
    """Add a finer level to the fused coarser levels and resize the sum."""

    unit: type[ResidualUnit] = ResidualUnit

    def __init__(self, features: int, *, has_skip: bool = True):
        super().__init__()
        if has_skip:
            self.resConfUnit1 = self.unit(features)
        self.resConfUnit2 = self.unit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, skip: Tensor | None, size: Sequence[int]) -> Tensor:
        """Fuse a level of equal size, if given, and resize. (N, F, h, w) → (N, F, *size)"""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        # A 1×1 convolution commutes with a resize whose weights sum to 1. This order processes a quarter of the pixels.
        return interpolate(conv1x1(self.resConfUnit2(x), self.out_conv.weight, self.out_conv.bias), size)


class Reassembly(nn.Module):
    """Convert the tokens of four layers to maps with 4, 2, 1 and ½ cells per patch side (DPT, Sec. 3.2)."""

    def __init__(self, dim: int, channels: Sequence[int], *, patch_size: int, has_positions: bool = True):
        super().__init__()
        self.patch_size = patch_size
        self.has_positions = has_positions
        self.norm = nn.LayerNorm(dim)
        self.projects = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, 4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, 2, 1),
            ]
        )

    def levels(self, tokens: Sequence[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Compute the four maps.

        Args:
            tokens: Patch tokens of the four layers. (N, h·w, C) each
            image_size: H, W in pixels.

        Returns:
            Maps from fine to coarse. (N, channels, …) each
        """
        height, width = image_size
        grid = (height // self.patch_size, width // self.patch_size)
        levels = []
        for x, project, resize_layer in zip(tokens, self.projects, self.resize_layers, strict=True):
            # A linear layer on tokens gives a channels-last map, the fastest layout.
            x = F.linear(self.norm(x), project.weight.flatten(1), project.bias)
            x = x.transpose(1, 2).unflatten(2, grid)  # (N, channels, h, w)
            levels.append(resize_layer(self._with_position(x, image_size)))
        return levels

    def _with_position(self, x: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Add the position embedding in place, if the head has one."""
        return add_pos_embed(x, image_size) if self.has_positions else x


class DPTHead(Reassembly):
    """Predict a map per frame from the tokens of four aggregator layers.

    The h×w patches are reassembled to maps with 4, 2, 1 and ½ cells per patch side, then fused from coarse to fine.

    Reference: DPT, arXiv 2103.13413, Sec. 3.2.
    """

    def __init__(
        self,
        dim: int = 2048,
        *,
        patch_size: int = 14,
        features: int = 256,
        channels: Sequence[int] = (256, 512, 1024, 1024),
        out_channels: int | None = None,
        downscale: int = 1,
        skip_channels: Sequence[int] = (),
    ):
        """Build the head.

        Args:
            dim: Token channels C.
            patch_size: Side of a patch in pixels.
            features: Channels F of the fused maps.
            channels: Channels of the four reassembled maps.
            out_channels: Channels of the output. None: F channels, without the output convolutions and positions.
            downscale: Side of the image divided by the side of the output.
            skip_channels: Channels of the encoder maps at 1/2 and 1/4 of the input resolution. Empty: no encoder maps.
        """
        super().__init__(dim, channels, patch_size=patch_size, has_positions=out_channels is not None)
        self.downscale = downscale
        self.scratch = Scratch(features, channels, out_channels)
        self.skips = nn.ModuleList(nn.Conv2d(width, features, 1) for width in skip_channels)

    def forward(self, tokens: Sequence[Tensor], image_size: tuple[int, int], fine: Sequence[Tensor] = ()) -> Tensor:
        """Predict the map.

        Args:
            tokens: Patch tokens of the four layers. (N, h·w, C) each
            image_size: Height and width in pixels.
            fine: Encoder maps from fine to coarse, one per entry of `skip_channels`. (N, channels, …) each

        Returns:
            The map before the activation. (N, out_channels or F, H/downscale, W/downscale)
        """
        height, width = image_size
        levels = self.levels(tokens, image_size)
        x = self.scratch.fuse(levels, [skip(F.gelu(level)) for skip, level in zip(self.skips, fine, strict=True)])
        x = interpolate(x, (height // self.downscale, width // self.downscale))
        return self.scratch.finish(self._with_position(x, image_size))


class LevelFusion(nn.Module):
    """Fuse four maps from coarse to fine (DPT, Sec. 3.2)."""

    fusion: type[FeatureFusion] = FeatureFusion
    upscale = 2
    """Resolution of the output relative to the finest map."""

    def __init__(self, features: int, channels: Sequence[int]):
        super().__init__()
        for level, width in enumerate(channels, 1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(width, features, 3, padding=1, bias=False))
        for level in range(1, 5):
            self.add_module(f"refinenet{level}", self.fusion(features, has_skip=level < 4))

    def fuse(self, levels: Sequence[Tensor], skips: Sequence[Tensor] = ()) -> Tensor:
        """Fuse four maps to one.

        Args:
            levels: Maps from fine to coarse. (N, channels, …) each
            skips: Encoder maps at twice the resolution of the finest level and at about its resolution, or none.

        Returns:
            The fused map at `upscale` times the resolution of the finest level. (N, F, …)
        """
        level1, level2, level3, level4 = (self.get_submodule(f"layer{i}_rn")(x) for i, x in enumerate(levels, 1))
        if skips:
            level1 = level1 + interpolate(skips[1], level1.shape[-2:])
        x = self.refinenet4(level4, None, level3.shape[-2:])
        x = self.refinenet3(x, level3, level2.shape[-2:])
        x = self.refinenet2(x, level2, level1.shape[-2:])
        x = self.refinenet1(x, level1, [self.upscale * side for side in level1.shape[-2:]])
        if skips:
            x = F.relu_(x + interpolate(skips[0], x.shape[-2:]))
        return x


class Scratch(LevelFusion):
    """Fusion and output convolutions. The released checkpoints use the name "scratch"."""

    def __init__(self, features: int, channels: Sequence[int], out_channels: int | None):
        super().__init__(features, channels)
        if out_channels is None:
            self.output_conv1 = nn.Conv2d(features, features, 3, padding=1)
            self.output_conv2 = None
        else:
            self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
            self.output_conv2 = nn.Sequential(
                nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, out_channels, 1)
            )

    def fuse(self, levels: Sequence[Tensor], skips: Sequence[Tensor] = ()) -> Tensor:
        """Fuse four maps and apply the first output convolution. Arguments as in `LevelFusion.fuse`."""
        return self.output_conv1(super().fuse(levels, skips))

    def finish(self, x: Tensor) -> Tensor:
        """Apply the output convolutions, if any. (N, F or F/2, H, W) → (N, out_channels or F, H, W)"""
        if self.output_conv2 is None:
            return x
        *before, last = self.output_conv2
        for layer in before:
            x = layer(x)
        return conv1x1_float32(last, x)


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a 1×1 convolution as a linear layer on channels-last pixels, which is faster on CPU.

    Args:
        x: Map. (N, C, h, w)
        weight: Weight of the convolution. (F, C, 1, 1)
        bias: Bias of the convolution. (F)

    Returns:
        Map in channels-last layout. (N, F, h, w)
    """
    return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


def conv1x1_float32(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1×1 convolution in at least float32, also under autocast.

    An exponential follows, which turns the rounding of half precision into visible steps of the depth.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        return conv1x1(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))


def interpolate(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly with aligned corners. (N, C, h, w) → (N, C, *size)"""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def add_pos_embed(x: Tensor, image_size: tuple[int, int], scale: float = 0.1) -> Tensor:
    """Add a sinusoidal embedding of the pixel positions to a map, in place.

    Positions are normalized by the diagonal, so they depend on the aspect ratio. The first C/2 channels encode x, the
    others y.

    Args:
        x: Map. (N, C, h, w)
        image_size: Height and width in pixels.
        scale: Amplitude of the embedding.
    """
    channels, height, width = x.shape[1:]
    aspect = image_size[1] / image_size[0]
    diagonal = (aspect**2 + 1) ** 0.5
    half = channels // 2
    with torch.no_grad():  # adding a constant passes the gradient on unchanged, so autograd needs no copy of it
        x[:, :half] += _axis_embed(aspect / diagonal, width, half, scale, x.dtype, x.device)[:, None, :]
        x[:, half:] += _axis_embed(1 / diagonal, height, half, scale, x.dtype, x.device)[:, :, None]
    return x


@cached_table(maxsize=128)  # a head needs ten tables per image size
def _axis_embed(
    span: float, count: int, channels: int, scale: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return sines, then cosines of the centers of `count` cells over [-span, span]. (channels, count)"""
    edge = span * (count - 1) / count
    centers = torch.linspace(-edge, edge, count, device=device)
    return (scale * sincos_embed(centers, channels, base=100.0).to(dtype)).T
