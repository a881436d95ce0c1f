"""Low-rank adapters (LoRA, arXiv 2106.09685) for training with few trainable parameters.

Layers and initialization are those of the `peft` library. During training, a layer `x.weight` is stored as
`x.base_layer.weight`, `x.lora_A.default.weight` and `x.lora_B.default.weight`. `merged` restores plain weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from streamvggt.extras import explain_missing
from streamvggt.transfer import widest_float

BASE, DOWN, UP = ".base_layer.", ".lora_A.default.", ".lora_B.default."


@dataclass(frozen=True)
class LowRank:
    """Settings of low-rank adapters: W + (alpha / rank) · B·A with trainable A and B. B is initialized to 0.

    Attributes:
        layers: Name patterns of linear layers, for example "aggregator.global_blocks.*".
        rank: Rows of A and columns of B, at least 1.
        alpha: Scale of the weight update, above 0.
        dropout: Dropout probability of adapter inputs, in [0, 1).
        seed: Seed of A.

    Raises:
        ValueError: If `rank` or `alpha` is out of bounds.

    Reference: LoRA, arXiv 2106.09685.
    """

    layers: Sequence[str]
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"adapters: expected rank ≥ 1 and alpha > 0, got rank={self.rank}, alpha={self.alpha}.")

    def add(self, model: nn.Module) -> None:
        """Add adapters to the layers and freeze the weights of these layers. Other parameters are unchanged.

        Raises:
            ImportError: If peft is not installed.
            ValueError: If a pattern matches no linear layer.
        """
        with explain_missing("adapters"):
            from peft import LoraConfig, inject_adapter_in_model
        names = self._names(model)
        settings = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=names, bias="none"
        )
        learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            inject_adapter_in_model(settings, model)
        for name, parameter in model.named_parameters():  # peft freezes everything else
            if DOWN in name or UP in name or (name in learning):
                parameter.requires_grad_(True)

    def merged(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Merge the adapters into plain weights.

        Args:
            state: State dict of the network with adapters.

        Returns:
            State dict of the network without adapters.
        """
        plain = {}
        for name, tensor in state.items():
            if DOWN in name or UP in name:
                continue
            down = name.replace(BASE, DOWN)
            if BASE in name and down in state:
                widest = widest_float(tensor.device)
                change = state[name.replace(BASE, UP)].to(widest) @ state[down].to(widest)
                tensor = (tensor.to(widest) + self.alpha / self.rank * change).to(tensor.dtype)
            plain[name.replace(BASE, ".")] = tensor
        return plain

    def _names(self, model: nn.Module) -> list[str]:
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in linear):
                raise ValueError(
                    f"adapters.layers: expected patterns of linear layers, got {pattern!r}, which is none."
                )
        return [name for name in linear if any(fnmatchcase(name, pattern) for pattern in self.layers)]
