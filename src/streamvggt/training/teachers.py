"""Load teachers for distillation: VGGT or VGGT-Omega."""

from __future__ import annotations

import os
from collections.abc import Callable

from torch import Tensor

from streamvggt.model.omega.network import VGGTOmega
from streamvggt.model.omega.weights import is_omega, load_omega
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import load_model
from streamvggt.prediction import Prediction
from streamvggt.training.foreign_teacher import ForeignTeacher
from streamvggt.training.supervision import Teacher


def load_teacher(name_or_path: str | os.PathLike, **options) -> VGGT | VGGTOmega:
    """Load a bidirectional network. The tensor names in the file determine the class.

    Args:
        name_or_path: As in `load_model`, or a published file of VGGT-Omega (license: docs/training.md).
        options: Arguments of `load_model` or `load_omega`.

    Raises:
        FileNotFoundError: If there are no weights with this name.
        ValueError: If the file belongs to another network, or its tensors do not match.
    """
    if is_omega(name_or_path):
        return load_omega(name_or_path, **options)
    return load_model(name_or_path, causal=False, **options)


def taught_by(
    model: Callable[[Tensor], Prediction], *, num_queries: int = 64, same_images: bool = True
) -> Teacher | ForeignTeacher:
    """Create the supervision for a teacher: `Teacher` for VGGT, `ForeignTeacher` for any other callable.

    Args:
        model: Frozen teacher.
        num_queries: Number of query points per sequence (VGGT only).
        same_images: See `ForeignTeacher` (other teachers only).
    """
    if isinstance(model, VGGT):
        return Teacher(model, num_queries)
    return ForeignTeacher(model, same_images=same_images)
