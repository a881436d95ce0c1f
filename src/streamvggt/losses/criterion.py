"""What all criteria have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from streamvggt.losses.target import Target
from streamvggt.prediction import Prediction, of_frames

# The field of a prediction by which one sees that a head has spoken.
HEAD_FIELDS = {"camera": "pose_enc", "depth": "depth", "points": "points", "track": "tracks"}


@dataclass(frozen=True)
class LossOutput:
    """A loss and what it is made of.

    total: scalar; backward starts here.
    terms: what each head contributes, weighted, detached; they add up to `total`. Terms that do not apply are absent.
    details: further numbers for the log, detached; not contributions.
    """

    total: Tensor
    terms: dict[str, Tensor]
    details: dict[str, Tensor] = field(default_factory=dict)

    def with_terms(self, terms: dict[str, Tensor]) -> LossOutput:
        """With further weighted scalars."""
        detached = {name: value.detach() for name, value in terms.items()}
        return replace(self, total=sum(terms.values(), start=self.total), terms={**self.terms, **detached})


class Criterion(ABC):
    """A loss of a prediction and a target, computed in float32 at least, whatever the caller's autocast says."""

    @property
    @abstractmethod
    def heads(self) -> tuple[str, ...]:
        """The heads that the prediction, and the teacher if there is one, must have been asked for."""

    @abstractmethod
    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weighted contributions by head's name, and details for the log."""

    def __call__(self, prediction: Prediction, target: Target) -> LossOutput:
        device = _tensors(prediction)[0].device
        with torch.autocast(device.type, enabled=False):
            prediction = prediction.map(_at_least_float32).standardized()
            known = target.prediction.map(lambda t: _at_least_float32(t.detach())).standardized()
            target = replace(target, prediction=known)
            terms, details = self.terms(prediction, target)
            # Every output gets a gradient, if only of zeros: processes that train together must agree on this.
            start = sum(zero_loss(tensor) for tensor in _tensors(prediction))
            total = sum(terms.values(), start=start)
        return LossOutput(
            total,
            {name: value.detach() for name, value in terms.items()},
            {name: value.detach() for name, value in details.items()},
        )


def zero_loss(tensor: Tensor) -> Tensor:
    """A zero that hangs on `tensor`: backward gives it gradients of exactly zero, even if it holds NaN."""
    return tensor[:0].sum()


class SumOfTerms(Criterion):
    """One term for each head, each with its `weight`; the head of a term that is None or has weight 0 is not run.

    Terms of cameras and tracks are called with prediction and target and return a scalar; terms of maps are called
    with `Maps` and return scalars by name, to be added.
    """

    def __init__(self, **terms):
        self.by_head = {head: term for head, term in terms.items() if term is not None and term.weight}

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(self.by_head)

    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses, details = {}, {}
        for head, term in self.by_head.items():
            if not has_target(HEAD_FIELDS[head], prediction, target):
                continue
            if head in ("depth", "points"):
                parts = term(MapPair.of(head, prediction, target))
                details |= {f"{head}_{name}": part for name, part in parts.items()}
                loss = sum(parts.values())
            else:
                loss = term(prediction, target)
            losses[head] = term.weight * loss
        return losses, details


@dataclass(frozen=True)
class MapPair:
    """Depth or points of both sides.

    prediction, target: (B, S, H, W, C)
    conf, target_conf: the confidences; the target may have none. (B, S, H, W)
    valid: (B, S, H, W)
    """

    prediction: Tensor
    conf: Tensor
    target: Tensor
    target_conf: Tensor | None
    valid: Tensor

    @classmethod
    def of(cls, head: str, prediction: Prediction, target: Target) -> MapPair:
        frames = prediction.dense_frames
        known, known_conf = getattr(target.prediction, head), getattr(target.prediction, f"{head}_conf")
        return cls(
            getattr(prediction, head),
            getattr(prediction, f"{head}_conf"),
            of_frames(known, frames),
            None if known_conf is None else of_frames(known_conf, frames),
            of_frames(target.valid_like(known), frames),
        )


def has_target(name: str, prediction: Prediction, target: Target) -> bool:
    """Whether a field can be compared: the target knows it.

    Raises:
        ValueError: the target knows it, but the prediction has not got it.
    """
    if getattr(target.prediction, name) is None:
        return False
    if getattr(prediction, name) is None:
        raise ValueError(f"the target has {name}, the prediction has not: ask the model for the criterion's `heads`")
    return True


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _tensors(prediction: Prediction) -> list[Tensor]:
    found: list[Tensor] = []
    prediction.map(lambda tensor: found.append(tensor) or tensor)
    if not found:
        raise ValueError("the prediction is empty: ask the model for the criterion's `heads`")
    return found
