"""Depth and point heads: a DPT head with an activation (VGGT, arXiv 2503.11651, Sec. 3.3).

B batch · S frames · P tokens of a frame · C channels of the aggregator · H×W pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from streamvggt.layers.xfeat import XFeat
from streamvggt.model.heads.context import HeadContext, run_dense
from streamvggt.model.heads.dpt import DPTHead


class MapHead(DPTHead):
    """Predict maps of the image size. Subclasses define the channels and the activation."""

    out_channels: int
    """Channels of the map before the activation."""

    @classmethod
    def from_config(cls, config: Any, **_) -> MapHead:
        """Build the head with the DPT sizes of a `VGGTConfig`."""
        return cls(
            2 * config.embed_dim,
            patch_size=config.patch_size,
            features=config.dpt_features,
            channels=config.dpt_channels,
            out_channels=cls.out_channels,
            skip_channels=XFeat.fine_channels if config.xfeat else (),
        )

    def predict(self, tokens: Sequence[Tensor], context: HeadContext) -> dict[str, Tensor]:
        """Predict the maps from the frame tokens of four layers, (B, S, P, 2C) each."""
        return self.activate(run_dense(self, tokens, context, context.dense_frames))

    @abstractmethod
    def activate(self, maps: Tensor) -> dict[str, Tensor]:
        """Convert the output of the network to outputs by name.

        Args:
            maps: Output of the last convolution. (B, S, H, W, out_channels)

        Returns:
            Fields of `Prediction`, or entries of `Prediction.extra`.
        """


class DepthHead(MapHead):
    """Predict depth and its confidence."""

    out_channels = 2

    def activate(self, maps: Tensor) -> dict[str, Tensor]:
        """Return depth > 0 (B, S, H, W, 1) and confidence ≥ 1 (B, S, H, W)."""
        return {"depth": maps[..., :1].exp(), "depth_conf": 1 + maps[..., 1].exp()}


class PointHead(MapHead):
    """Predict world points and their confidence."""

    out_channels = 4

    def activate(self, maps: Tensor) -> dict[str, Tensor]:
        """Return world points (B, S, H, W, 3) and confidence ≥ 1 (B, S, H, W)."""
        xyz = maps[..., :3]
        return {"points": xyz.sign() * xyz.abs().expm1(), "points_conf": 1 + maps[..., 3].exp()}
