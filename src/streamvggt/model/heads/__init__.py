"""Table of the heads. A new head is a module in this package and an entry in `HEADS`.

The names of an entry are the names in the configuration, in `heads=`, in the loss and in the prediction. Outputs that
are no fields of `Prediction` are entries of `Prediction.extra`, and are stored in the result files by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from streamvggt.model.heads.camera import CameraHead
from streamvggt.model.heads.context import HeadContext
from streamvggt.model.heads.dense import DepthHead, PointHead
from streamvggt.model.heads.track import TrackHead


class Head(Protocol):
    """Module that predicts outputs from the frame tokens of some layers."""

    @classmethod
    def from_config(cls, config: Any, *, layer_scale: float, attention: str) -> Head:
        """Build the head.

        Args:
            config: The `VGGTConfig`.
            layer_scale: Initial LayerScale factor of transformer blocks.
            attention: Attention kernel.
        """

    def predict(self, tokens: Sequence[Tensor], context: HeadContext) -> dict[str, Tensor | tuple[Tensor, ...]]:
        """Predict the outputs.

        Args:
            tokens: Frame tokens of `HeadEntry.layers`. (B, S, P, 2C) each
            context: Further inputs.

        Returns:
            Outputs by name. Entries of `Prediction.extra` have the leading dimensions (B, S).
        """


def last_layer(config: Any) -> tuple[int, ...]:
    """Return the last layer of the aggregator."""
    return (config.depth - 1,)


def dpt_layers(config: Any) -> tuple[int, ...]:
    """Return the four layers of the DPT heads."""
    return config.dpt_layers


@dataclass(frozen=True)
class HeadEntry:
    """Entry of the table.

    Args:
        module: Name of the submodule of the network. The names of its weights start with `module` and a dot.
        head: Class of the head.
        layers: Function of the configuration that returns the aggregator layers the head reads.
    """

    module: str
    head: type[Head]
    layers: Callable[[Any], Sequence[int]]

    @property
    def prefix(self) -> str:
        """Start of the names of the weights."""
        return f"{self.module}."


HEADS: dict[str, HeadEntry] = {
    "camera": HeadEntry("camera_head", CameraHead, last_layer),
    "points": HeadEntry("point_head", PointHead, dpt_layers),
    "depth": HeadEntry("depth_head", DepthHead, dpt_layers),
    "track": HeadEntry("track_head", TrackHead, dpt_layers),
}
"""Heads by name, in the order of construction: a seed determines the initial weights."""
