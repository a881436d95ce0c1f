"""Patch embedding with XFeat descriptors and fine feature maps, for small networks.

The descriptor network is the backbone of XFeat (arXiv 2404.19174). Its pretrained weights (Apache-2.0) replace the
DINOv2 weights of the full network. A small network trained from scratch otherwise needs hours to learn correspondences.

B images · C token channels · H×W pixels · h×w patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamvggt.layers.stem import ConvStem

DESCRIPTOR_STRIDE = 8
"""Pixels per descriptor along each axis."""


class XFeat(nn.Module):
    """Compute dense local descriptors. Batch normalization is folded into the convolutions.

    Reference: XFeat, arXiv 2404.19174.
    """

    width = 64
    fine_channels = (8, 24)
    """Channels of the maps at 1/2 and 1/4 of the resolution."""

    def __init__(self):
        super().__init__()
        self.skip1 = _conv(1, 24, 1)
        self.block1 = nn.ModuleList([_conv(1, 4), _conv(4, 8, stride=2), _conv(8, 8), _conv(8, 24, stride=2)])
        self.block2 = nn.ModuleList([_conv(24, 24), _conv(24, 24)])
        self.block3 = nn.ModuleList([_conv(24, 64, stride=2), _conv(64, 64), _conv(64, 64, 1)])
        self.block4 = nn.ModuleList([_conv(64, 64, stride=2), _conv(64, 64), _conv(64, 64)])
        self.block5 = nn.ModuleList([_conv(64, 128, stride=2), _conv(128, 128), _conv(128, 128), _conv(128, 64, 1)])
        self.block_fusion = nn.ModuleList([_conv(64, 64), _conv(64, 64), _conv(64, 64, 1)])

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute descriptors and feature maps.

        Args:
            images: RGB in any range, because the contrast is normalized. H and W are multiples of 8. (B, 3, H, W)

        Returns:
            Unit descriptors (B, 64, H/8, W/8), and feature maps (B, 8, H/2, W/2) and (B, 24, H/4, W/4).
        """
        gray = F.instance_norm(images.mean(1, keepdim=True)).to(memory_format=torch.channels_last)
        half = _relu_convs(self.block1[:2], gray)
        x = _relu_convs(self.block1[2:], half) + self.skip1(F.avg_pool2d(gray, 4))
        quarter = _relu_convs(self.block2, x)
        x3 = _relu_convs(self.block3, quarter)
        x4 = _relu_convs(self.block4, x3)
        x5 = _relu_convs(self.block5, x4)
        coarse = [F.interpolate(level, x3.shape[-2:], mode="bilinear") for level in (x4, x5)]
        fused = self.block_fusion[2](_relu_convs(self.block_fusion[:2], x3 + coarse[0] + coarse[1]))
        return F.normalize(fused.float(), dim=1), [half, quarter]

    @torch.no_grad()
    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Load the published XFeat checkpoint (`xfeat.pt`) and fold its batch normalization.

        Args:
            state: State dict of the checkpoint.

        Raises:
            ValueError: If a tensor is missing.
        """
        last = f"block_fusion.{len(self.block_fusion) - 1}"
        for name, layer in self.named_modules():
            if not isinstance(layer, nn.Conv2d):
                continue
            published = "skip1.1" if name == "skip1" else name
            try:
                if name in ("skip1", last):
                    weight, bias = state[f"{published}.weight"], state[f"{published}.bias"]
                else:
                    norm = f"{published}.layer.1"
                    factor = (state[f"{norm}.running_var"] + 1e-5).rsqrt()
                    weight = state[f"{published}.layer.0.weight"] * factor[:, None, None, None]
                    bias = -state[f"{norm}.running_mean"] * factor
            except KeyError as error:
                raise ValueError(f"XFeat weights: expected a tensor {error}, got {len(state)} others") from error
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


class XFeatEmbed(nn.Module):
    """Images to patch tokens: a strided convolution (VGGT) or a convolutional stem, plus XFeat's descriptors.

    The feature maps at 1/2 and 1/4 are returned for skip connections of the dense heads, because patch tokens alone do
    not locate edges.
    """

    def __init__(self, patch_size: int, dim: int, stem_width: int = 0):
        """Build the embedding.

        Args:
            patch_size: Side of a patch in pixels, a multiple of 8.
            dim: Token channels C.
            stem_width: `width` of a `ConvStem`. 0: a strided convolution.

        Raises:
            ValueError: If the patch size is not a multiple of 8.
        """
        super().__init__()
        if patch_size % DESCRIPTOR_STRIDE:
            raise ValueError(f"patch_size: expected a multiple of {DESCRIPTOR_STRIDE} for XFeat, got {patch_size}")
        self.patch_size = patch_size
        self.proj = ConvStem(patch_size, dim, stem_width) if stem_width else nn.Conv2d(3, dim, patch_size, patch_size)
        self.xfeat = XFeat()
        cells = patch_size // DESCRIPTOR_STRIDE
        self.describe = nn.Conv2d(XFeat.width, dim, cells, cells)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute patch tokens and fine maps.

        Args:
            images: RGB. (B, 3, H, W)

        Returns:
            Patch tokens (B, C, h, w), and fine maps packed into patch channels, (B, channels · k², h, w) each, with k
            cells per patch side. Unpack them with `fine_maps`.
        """
        descriptors, maps = self.xfeat(images)
        tokens = self.proj(images) + self.describe(DESCRIPTOR_SCALE * descriptors.to(images.dtype))
        packed = [F.pixel_unshuffle(level, self.patch_size // 2 ** (i + 1)) for i, level in enumerate(maps)]
        return tokens, packed


DESCRIPTOR_SCALE = 8.0
"""Factor on unit descriptors, so that each of their 64 values has a magnitude of about 1."""


def fine_maps(packed: Tensor, channels: Sequence[int], patch_size: int, grid: tuple[int, int]) -> list[Tensor]:
    """Unpack the maps that `XFeatEmbed` packs into patch channels.

    Args:
        packed: Packed maps with k = patch_size / 2, patch_size / 4, … (B, h·w, Σ channels · k²)
        channels: Channels of each map, from fine to coarse.
        patch_size: Side of a patch in pixels.
        grid: Patch rows and columns h, w.

    Returns:
        Maps from fine to coarse. (B, channels[i], k·h, k·w) each
    """
    cells = [patch_size // 2 ** (level + 1) for level in range(len(channels))]
    sizes = [width * k * k for width, k in zip(channels, cells, strict=True)]
    parts = packed.mT.unflatten(2, grid).split(sizes, 1)
    return [F.pixel_shuffle(part, k) for part, k in zip(parts, cells, strict=True)]


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def _relu_convs(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = F.relu(layer(x))
    return x
