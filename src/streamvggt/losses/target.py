"""What a prediction is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.prediction import Prediction


@dataclass(frozen=True)
class Target:
    """A teacher's prediction, or measurements in the same form: first camera as world, poses camera-from-world.

    prediction: what is not known is None. Values at pixels that are not valid are never used; they may be NaN.
    valid: pixels whose depth and point are known; None means all. Bool (B, S, H, W)
    sky: pixels that show sky. Bool (B, S, H, W); only the published point-map criterion asks.
    is_metric: whether the unit is the metre. Bool (B,); only the published point-map criterion asks.
    camera_only: whether only the poses can be trusted. Bool (B,); only the published point-map criterion asks.
    """

    prediction: Prediction
    valid: Tensor | None = None
    sky: Tensor | None = None
    is_metric: Tensor | None = None
    camera_only: Tensor | None = None

    def valid_like(self, pixels: Tensor) -> Tensor:
        """`valid`, made all true if it is None, for a map (B, S, H, W, C). Bool (B, S, H, W)"""
        if self.valid is None:
            return torch.ones(pixels.shape[:4], dtype=torch.bool, device=pixels.device)
        if self.valid.shape != pixels.shape[:4]:
            raise ValueError(
                f"the target's valid mask has shape {tuple(self.valid.shape)}, the map has {tuple(pixels.shape[:4])}"
            )
        return self.valid
