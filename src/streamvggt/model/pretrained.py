"""Base class of networks with a configuration that is stored beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from torch import nn

from streamvggt.model.config import VGGTConfig
from streamvggt.model.loading import load_network
from streamvggt.model.saving import save_model


class PretrainedNetwork(nn.Module):
    """Network that is loaded from and saved to folders with config.json and model.safetensors.

    Attributes:
        config: Sizes and options.
        build: Function of constructor arguments that returns the network.
    """

    config: VGGTConfig
    build: Callable[[dict[str, Any]], Any]
    _default_causal: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads in this network."""
        return self.config.heads

    @property
    def causal(self) -> bool:
        """Whether frames attend to themselves and earlier frames only (StreamVGGT)."""
        return self.config.causal

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.config.patch_size

    @property
    def scale_frames(self) -> int:
        """Number of first frames of a stream that run in one joint step. See `VGGTConfig`."""
        return self.config.scale_frames

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options) -> Self:
        """Load a network from a folder, a file or the Hugging Face Hub. See `load_model` for the arguments."""
        return load_network(cls.build, name_or_path, causal=cls._default_causal, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors for `from_pretrained` and the Hugging Face Hub."""
        save_model(self, folder)
