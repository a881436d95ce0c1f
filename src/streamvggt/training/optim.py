"""Which parameters learn, how fast, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import AdamW

from streamvggt.model.names import original_name


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (arXiv 1711.05101) with warm-up, plateau and cosine.

    Patterns such as "aggregator.patch_embed.*" match whole names of parameters in the network itself: a wrapper of DDP,
    FSDP or torch.compile does not change them.

    lr, min_lr: at the end of the warm-up, and at the end of the training.
    steps, warmup_steps: optimiser steps of the whole training, and of its linear start from 0.
    decay_from: share of the steps after which the learning rate falls; 0: right after the warm-up.
    freeze: patterns of parameters that do not learn.
    lr_multipliers: pattern → factor on the learning rate; the first that matches counts.
    clip_norm: of the gradients of all parameters together.
    separate_clip: patterns of parameters whose gradients are clipped by themselves, each pattern's together: where one
        part's gradients are much larger, it would decide the step of all others.
    """

    lr: float
    steps: int
    min_lr: float = 0.0
    warmup_steps: int = 0
    decay_from: float = 0.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    separate_clip: Sequence[str] = ()
    freeze: Sequence[str] = ()
    lr_multipliers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if self.steps < 1 or not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(f"steps={self.steps} must be positive and warmup_steps={self.warmup_steps} within it")
        bounds = {"lr": self.lr >= 0, "min_lr": self.min_lr >= 0, "clip_norm": self.clip_norm > 0}
        for name, is_right in {**bounds, "weight_decay": self.weight_decay >= 0}.items():
            if not is_right or not math.isfinite(getattr(self, name)):
                raise ValueError(
                    f"optimisation.{name}: expected a finite number of the right sign, got {getattr(self, name)!r}"
                )
        if not 0 <= self.decay_from < 1:
            raise ValueError(f"decay_from: expected a share of the steps in [0, 1), got {self.decay_from}")

    def lr_at(self, step: float) -> float:
        """The learning rate of a step, counted from 0, before multipliers."""
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps
        first = max(self.warmup_steps, round(self.decay_from * self.steps))
        done = min(max((step - first) / max(self.steps - first, 1), 0.0), 1.0)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * done))

    def build(self, model: nn.Module, fused: bool = False) -> AdamW:
        """Make the optimizer of the parameters that learn; the caller freezes the others.

        Raises:
            ValueError: If a pattern matches no parameter or nothing is left to learn.
        """
        groups = parameter_groups(model, self.weight_decay, self.lr_multipliers)
        return AdamW(groups, lr=self.lr, betas=tuple(self.betas), fused=fused)

    def clip_groups(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """The trainable parameters, first those clipped with all others, then those of each pattern of `separate_clip`.

        Raises:
            ValueError: a pattern matches no trainable parameter.
        """
        patterns = list(self.separate_clip)
        sets: list[list[nn.Parameter]] = [[] for _ in range(1 + len(patterns))]
        for name, parameter in named_parameters(model):
            if parameter.requires_grad:
                of = next((i for i, pattern in enumerate(patterns, 1) if fnmatchcase(name, pattern)), 0)
                sets[of].append(parameter)
        for pattern, found in zip(patterns, sets[1:], strict=True):
            if not found:
                raise ValueError(f"separate_clip pattern {pattern!r} matches no trainable parameter of the network")
        return [parameters for parameters in sets if parameters]

    def set_lr(self, optimizer, step: int) -> float:
        lr = self.lr_at(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_multiplier"]
        return lr


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a network, wrapped or not, by their names in the network itself."""
    return ((original_name(name), parameter) for name, parameter in model.named_parameters())


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        matched = [p for name, p in named_parameters(model) if fnmatchcase(name, pattern)]
        if not matched:
            raise ValueError(f"freeze pattern {pattern!r} matches no parameter of the network")
        for parameter in matched:
            parameter.requires_grad_(False)


def parameter_groups(model: nn.Module, weight_decay: float, lr_multipliers: Mapping[str, float]) -> list[dict]:
    """Groups of the trainable parameters by decay and multiplier; vectors and biases do not decay."""
    trainable = {name: p for name, p in named_parameters(model) if p.requires_grad}
    if not trainable:
        raise ValueError("every parameter is frozen: nothing is left to learn")
    for pattern in lr_multipliers:
        if not any(fnmatchcase(name, pattern) for name in trainable):
            raise ValueError(f"lr_multipliers pattern {pattern!r} matches no trainable parameter of the network")
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in trainable.items():
        decay = 0.0 if parameter.ndim == 1 or name.endswith(".bias") else weight_decay
        multiplier = next((f for pattern, f in lr_multipliers.items() if fnmatchcase(name, pattern)), 1.0)
        group = groups.setdefault(
            (decay, multiplier), {"params": [], "weight_decay": decay, "lr_multiplier": multiplier}
        )
        group["params"].append(parameter)
    return list(groups.values())


def summarize_parameters(model: nn.Module) -> str:
    """How many tensors and numbers learn and how many are frozen, for the log."""
    learning = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    return (
        f"{len(learning)} tensors with {sum(p.numel() for p in learning):,} parameters learn, "
        f"{len(frozen)} with {sum(p.numel() for p in frozen):,} are frozen"
    )
