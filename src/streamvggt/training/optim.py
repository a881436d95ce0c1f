"""Optimizer, learning-rate schedule and parameter groups."""

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
    """AdamW (arXiv 1711.05101) with linear warm-up, plateau and cosine decay.

    Patterns such as "aggregator.patch_embed.*" match full parameter names of the network, without the prefixes of DDP,
    FSDP or torch.compile.

    Attributes:
        lr: Learning rate at the end of the warm-up.
        steps: Number of optimizer steps.
        min_lr: Learning rate at the end of the training.
        warmup_steps: Number of steps of the linear warm-up from 0.
        decay_from: Fraction of the steps after which the decay starts, in [0, 1). 0: directly after the warm-up.
        weight_decay: Weight decay of matrices. Vectors and biases have none.
        betas: Decay rates of the gradient moments.
        clip_norm: Maximum norm of the gradients of all parameters, except `separate_clip`.
        separate_clip: Patterns of parameters whose gradients are clipped separately, one group per pattern. Otherwise
            a part with much larger gradients scales down the step of all others.
        freeze: Patterns of frozen parameters.
        lr_multipliers: Factor on the learning rate per pattern. The first matching pattern is used.

    Raises:
        ValueError: If a value is out of bounds.
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
                    f"optim.{name}: expected a finite number of the right sign, got {getattr(self, name)!r}"
                )
        if not 0 <= self.decay_from < 1:
            raise ValueError(f"decay_from: expected a fraction of the steps in [0, 1), got {self.decay_from}")

    def lr_at(self, step: float) -> float:
        """Return the learning rate of a step, counted from 0, without multipliers."""
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps
        first = max(self.warmup_steps, round(self.decay_from * self.steps))
        done = min(max((step - first) / max(self.steps - first, 1), 0.0), 1.0)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * done))

    def build(self, model: nn.Module, fused: bool = False) -> AdamW:
        """Create the optimizer of all trainable parameters. Freeze parameters before this call.

        Raises:
            ValueError: If a pattern matches no parameter, or no parameter is trainable.
        """
        groups = parameter_groups(model, self.weight_decay, self.lr_multipliers)
        return AdamW(groups, lr=self.lr, betas=tuple(self.betas), fused=fused)

    def clip_groups(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """Group the trainable parameters by gradient clipping.

        Returns:
            Parameters clipped together, then the parameters of each pattern of `separate_clip`.

        Raises:
            ValueError: If a pattern matches no trainable parameter.
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
        """Set the learning rates of a step. Return the learning rate without multipliers."""
        lr = self.lr_at(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_multiplier"]
        return lr


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a network with their names, without the prefixes of wrappers."""
    return ((original_name(name), parameter) for name, parameter in model.named_parameters())


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters whose names match a pattern.

    Raises:
        ValueError: If a pattern matches no parameter.
    """
    for pattern in patterns:
        matched = [p for name, p in named_parameters(model) if fnmatchcase(name, pattern)]
        if not matched:
            raise ValueError(f"freeze pattern {pattern!r} matches no parameter of the network")
        for parameter in matched:
            parameter.requires_grad_(False)


def parameter_groups(model: nn.Module, weight_decay: float, lr_multipliers: Mapping[str, float]) -> list[dict]:
    """Group the trainable parameters by weight decay and learning-rate multiplier. Vectors and biases do not decay.

    Raises:
        ValueError: If a pattern matches no trainable parameter, or no parameter is trainable.
    """
    trainable = {name: p for name, p in named_parameters(model) if p.requires_grad}
    if not trainable:
        raise ValueError("no parameter is trainable: all are frozen")
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
    """Return a log line with the numbers of trainable and frozen parameters."""
    learning = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    return (
        f"{len(learning)} tensors with {sum(p.numel() for p in learning):,} parameters are trainable, "
        f"{len(frozen)} with {sum(p.numel() for p in frozen):,} are frozen"
    )
