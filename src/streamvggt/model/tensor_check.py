"""Compare the tensors of a network and a checkpoint."""

from __future__ import annotations

import logging

from streamvggt.choices import RELEASED_HEADS
from streamvggt.model.heads import HEADS
from streamvggt.model.vggt import VGGT
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


def check_tensors(model: VGGT, checkpoint: Checkpoint) -> None:
    """Compare the tensors of the network and the file.

    Raises:
        ValueError: If tensors are missing, extra or wrong-shaped. The message lists them.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    unread = (AUXILIARY_PREFIX, *(entry.prefix for head, entry in HEADS.items() if head not in model.heads))
    there = {name: shape for name, shape in checkpoint.shapes.items() if not name.startswith(unread)}
    missing = [name for name in expected if name not in there]
    extra = [name for name in there if name not in expected]
    wrong = [name for name in expected if name in there and there[name] != expected[name]]
    if not (missing or extra or wrong):
        return
    lines = [f"{checkpoint.source} does not fit the network:"]
    if missing:
        lines.append(f"  {len(missing)} missing: {some(missing)}")
    if extra:
        lines.append(f"  {len(extra)} extra: {some(extra)}")
    if wrong:
        shapes = [f"{name} is {there[name]}, expected {expected[name]}" for name in wrong]
        lines.append(f"  {len(wrong)} of wrong shape: {some(shapes)}")
    absent = [
        head for head in model.heads if not any(name.startswith(HEADS[head].prefix) for name in checkpoint.shapes)
    ]
    if absent:
        present = tuple(head for head in model.heads if head not in absent)
        lines.append(f"  The file has no {', '.join(absent)} head: load it with heads={present}")
    raise ValueError("\n".join(lines))
