"""Compare the tensors of a network and a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from torch import nn

from streamvggt.choices import RELEASED_HEADS
from streamvggt.model.heads import HEADS
from streamvggt.model.weights_file import Checkpoint, some

logger = logging.getLogger(__name__)

AUXILIARY_PREFIX = "auxiliary."
"""Prefix of the auxiliary parameters in a training checkpoint."""


def heads_in(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the heads that have tensors in a file without a config; a log line names the absent ones."""
    present = tuple(
        head
        for head in (*RELEASED_HEADS, *(HEADS.keys() - set(RELEASED_HEADS)))
        if any(name.startswith(HEADS[head].prefix) for name in checkpoint.shapes)
    )
    absent = [head for head in RELEASED_HEADS if head not in present]
    if present and absent:
        logger.warning(
            "Loading %s with heads %s. No %s in it.", checkpoint.source, ", ".join(present), ", ".join(absent)
        )
    return present or RELEASED_HEADS


def check_tensors(model: nn.Module, heads: Sequence[str], checkpoint: Checkpoint) -> None:
    """Compare the tensors of the network and the file.

    Args:
        model: Network, also on the meta device.
        heads: Heads of the network.
        checkpoint: File of weights.

    Raises:
        ValueError: If tensors are missing, extra or wrong-shaped. The message lists them.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    unread = (AUXILIARY_PREFIX, *(entry.prefix for head, entry in HEADS.items() if head not in heads))
    there = {name: shape for name, shape in checkpoint.shapes.items() if not name.startswith(unread)}
    differences = list_differences(expected, there)
    if not differences:
        return
    lines = [f"{checkpoint.source} does not fit the network:", *differences]
    absent = [head for head in heads if not any(name.startswith(HEADS[head].prefix) for name in checkpoint.shapes)]
    if absent:
        present = tuple(head for head in heads if head not in absent)
        lines.append(f"  The file has no {', '.join(absent)} head: load it with heads={present}")
    raise ValueError("\n".join(lines))


def list_differences(expected: Mapping[str, tuple[int, ...]], there: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return lines that name the tensors of a file that are missing, extra or of wrong shape."""
    missing = [name for name in expected if name not in there]
    extra = [name for name in there if name not in expected]
    wrong = [name for name in expected if name in there and there[name] != expected[name]]
    shapes = [f"{name} is {there[name]}, expected {expected[name]}" for name in wrong]
    groups = {"missing": missing, "extra": extra, "of wrong shape": shapes}
    return [f"  {len(names)} {what}: {some(names)}" for what, names in groups.items() if names]
