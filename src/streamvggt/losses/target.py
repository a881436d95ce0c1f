"""Targets of losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.prediction import Prediction


@dataclass(frozen=True)
class Target:
    """Prediction of a teacher, or ground truth in the same form: world of the first camera, camera-from-world poses.

    Attributes:
        prediction: Target values. None: unknown field. Values at invalid pixels are not used and can be NaN.
        valid: Pixels with valid depth and points. None: all pixels. Bool (B, S, H, W)
        sky: Sky pixels. Only for the reference point-map criterion. Bool (B, S, H, W)
        is_metric: Whether the unit is the meter. Only for the reference point-map criterion. Bool (B,)
        camera_only: Whether only the poses are reliable. Only for the reference point-map criterion. Bool (B,)
    """

    prediction: Prediction
    valid: Tensor | None = None
    sky: Tensor | None = None
    is_metric: Tensor | None = None
    camera_only: Tensor | None = None

    def valid_like(self, pixels: Tensor) -> Tensor:
        """Return `valid`, or an all-true mask if `valid` is None.

        Args:
            pixels: Map that the mask applies to. (B, S, H, W, C)

        Returns:
            Mask. Bool (B, S, H, W)

        Raises:
            ValueError: If the shapes of mask and map differ.
        """
        if self.valid is None:
            return torch.ones(pixels.shape[:4], dtype=torch.bool, device=pixels.device)
        if self.valid.shape != pixels.shape[:4]:
            raise ValueError(
                f"the target's valid mask has shape {tuple(self.valid.shape)}, the map has {tuple(pixels.shape[:4])}"
            )
        return self.valid
