"""Low-rank adapters (LoRA, arXiv 2106.09685): small matrices learn in place of the large ones that they change.

The layers and their start are those of the `peft` library. While training, a layer `x.weight` is stored as
`x.base_layer.weight`, `x.lora_A.default.weight` and `x.lora_B.default.weight`; `merged` gives plain weights again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

BASE, DOWN, UP = ".base_layer.", ".lora_A.default.", ".lora_B.default."


@dataclass(frozen=True)
class LowRank:
    """Settings of the adapters: W + (alpha / rank) · B·A, of which B and A learn and B starts at 0.

    Attributes:
        layers: Patterns of the names of linear layers, e.g. "aggregator.global_blocks.*".
        rank: Rows of A and columns of B.
        alpha: Scale of the change; the learning rate of the adapters is proportional to it.
        dropout: Probability of dropping an input of an adapter.
        seed: Seed of A.
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
        """Put adapters on the layers and freeze the weights under them. All other parameters stay as they are.

        Raises:
            ImportError: If peft is not installed.
            ValueError: If a pattern matches no linear layer.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise ImportError("adapters: expected the peft library, got none. Run pip install peft.") from error
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
        """The plain weights that compute the same: the names of the network without adapters.

        Args:
            state: State dict of the network with adapters.
        """
        plain = {}
        for name, tensor in state.items():
            if DOWN in name or UP in name:
                continue
            down = name.replace(BASE, DOWN)
            if BASE in name and down in state:
                change = state[name.replace(BASE, UP)].double() @ state[down].double()
                tensor = (tensor.double() + self.alpha / self.rank * change).to(tensor.dtype)
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
