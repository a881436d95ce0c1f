"""Interface of additional losses on activations of the network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from streamvggt.data.view import Batch
from streamvggt.model.vggt import VGGT


class AuxiliaryLoss(Protocol):
    """Additional losses on activations of the network, with their own parameters.

    The module is a submodule of the network during training. The saved weights do not contain it.
    """

    names: Sequence[str]

    def attach(self, network: VGGT) -> None:
        """Create the parameters for a network."""

    def record(self, network: VGGT) -> AbstractContextManager:
        """Return a context that records the activations of one forward pass in its target object."""

    def __call__(self, batch: Batch, seen: object, network: VGGT) -> dict[str, Tensor]:
        """Return weighted scalars by name."""
