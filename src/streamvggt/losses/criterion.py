"""Base classes of all criteria."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from streamvggt.losses.target import Target
from streamvggt.prediction import Prediction, of_frames


def head_output(head: str) -> str:
    """Return the name of a head's main output in `Prediction`: the name of the head, except for camera and track."""
    return {"camera": "pose_enc", "track": "tracks"}.get(head, head)


@dataclass(frozen=True)
class LossOutput:
    """Loss and its terms.

    Attributes:
        total: Loss to backpropagate, a scalar.
        terms: Weighted terms by head, detached. Their sum is `total`. Terms without a target are absent.
        details: Further values for the log, detached, not part of `total`.
    """

    total: Tensor
    terms: dict[str, Tensor]
    details: dict[str, Tensor] = field(default_factory=dict)

    def with_terms(self, terms: dict[str, Tensor]) -> LossOutput:
        """Add further weighted scalars to the loss."""
        detached = {name: value.detach() for name, value in terms.items()}
        return replace(self, total=sum(terms.values(), start=self.total), terms={**self.terms, **detached})


class Criterion(ABC):
    """Loss of a prediction against a target, computed in at least float32, also under autocast."""

    @property
    @abstractmethod
    def heads(self) -> tuple[str, ...]:
        """Heads that model and teacher must run."""

    @abstractmethod
    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weighted terms by head, and details for the log."""

    def __call__(self, prediction: Prediction, target: Target) -> LossOutput:
        device = _tensors(prediction)[0].device
        with torch.autocast(device.type, enabled=False):
            prediction = prediction.map(_at_least_float32).standardized()
            known = target.prediction.map(lambda t: _at_least_float32(t.detach())).standardized()
            target = replace(target, prediction=known)
            terms, details = self.terms(prediction, target)
            # Give every output a gradient, possibly zero, because distributed processes must use the same parameters.
            start = sum(zero_loss(tensor) for tensor in _tensors(prediction))
            total = sum(terms.values(), start=start)
        return LossOutput(
            total,
            {name: value.detach() for name, value in terms.items()},
            {name: value.detach() for name, value in details.items()},
        )


def zero_loss(tensor: Tensor) -> Tensor:
    """Return a zero that depends on `tensor`. Its gradient is exactly zero, even if the tensor contains NaN."""
    return tensor[:0].sum()


class MapTerm(ABC):
    """Term of a head that predicts a map with a confidence, for example depth. Computed from a `MapPair`."""

    weight: float

    @abstractmethod
    def __call__(self, maps: MapPair) -> dict[str, Tensor]:
        """Return scalars by name without `weight`. Their sum is the loss."""


class SumOfTerms(Criterion):
    """Weighted sum of one term per head. Heads whose term is None or has weight 0 are not run.

    A term is a `MapTerm`, or a function of prediction and target that returns a scalar and has a `weight`. A head
    without the target output in `head_output` is skipped. A term with the attribute `target_output` reads another
    output of the target, for example normals computed from the target's points.
    """

    def __init__(self, **terms):
        self.by_head = {head: term for head, term in terms.items() if term is not None and term.weight}

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads with a term."""
        return tuple(self.by_head)

    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weighted term of each head with a target, and the parts of map terms as details."""
        losses, details = {}, {}
        for head, term in self.by_head.items():
            output = head_output(head)
            if not has_target(output, prediction, target, getattr(term, "target_output", output)):
                continue
            if isinstance(term, MapTerm):
                parts = term(MapPair.of(head, prediction, target))
                details |= {f"{head}_{name}": part for name, part in parts.items()}
                loss = sum(parts.values())
            else:
                loss = term(prediction, target)
            losses[head] = term.weight * loss
        return losses, details


@dataclass(frozen=True)
class MapPair:
    """A map of prediction and target, for example depth.

    Attributes:
        prediction, target: Maps. (B, S, H, W, C)
        conf, target_conf: Confidences. `target_conf` can be None. (B, S, H, W)
        valid: Valid pixels of the target. Bool (B, S, H, W)
    """

    prediction: Tensor
    conf: Tensor
    target: Tensor
    target_conf: Tensor | None
    valid: Tensor

    @classmethod
    def of(cls, head: str, prediction: Prediction, target: Target) -> MapPair:
        """Select the maps of a head for the predicted frames. The confidence is the output `{head}_conf`."""
        frames = prediction.dense_frames
        known, known_conf = target.prediction.get(head), target.prediction.get(f"{head}_conf")
        return cls(
            prediction.get(head),
            prediction.get(f"{head}_conf"),
            of_frames(known, frames),
            None if known_conf is None else of_frames(known_conf, frames),
            of_frames(target.valid_like(known), frames),
        )


def has_target(name: str, prediction: Prediction, target: Target, target_name: str | None = None) -> bool:
    """Return whether the target has an output.

    Args:
        name: Name of the output in the prediction.
        prediction, target: The pair to compare.
        target_name: Name of the output in the target. None: `name`.

    Raises:
        ValueError: If the target has the output and the prediction does not.
    """
    if target.prediction.get(target_name or name) is None:
        return False
    if prediction.get(name) is None:
        raise ValueError(
            f"prediction: expected {name}, as in the target. Run the model with the `heads` of the criterion."
        )
    return True


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _tensors(prediction: Prediction) -> list[Tensor]:
    found: list[Tensor] = []
    prediction.map(lambda tensor: found.append(tensor) or tensor)
    if not found:
        raise ValueError("prediction: expected outputs, got none. Run the model with the `heads` of the criterion.")
    return found
