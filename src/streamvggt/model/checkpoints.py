"""Table of published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from streamvggt.choices import RELEASED_HEADS

DENSE = ("camera", "depth", "points")
NOT_RUN = "names and shapes; outputs of its class with random weights at small size; not the released file"


@dataclass(frozen=True)
class KnownCheckpoint:
    """A published file of weights.

    Args:
        id: Name on the Hugging Face Hub. If a repository has several files, the others are "id:variant".
        file: File in that repository.
        causal: Whether the network was trained with causal attention.
        heads: Heads in the file.
        parameters: Number of parameters in the file.
        license: License of the weights, if stated.
        verified: Extent of the comparison with the published class.
        options: Fields of `VGGTConfig` that the shapes do not determine.
        model: Loader: "vggt" for `load_model`, "omega" for `load_omega` (teachers).
        exact_camera: Whether the published stream has one cache per camera iteration. If True, do not use
            camera_cache="shared".
    """

    id: str
    file: str
    causal: bool
    heads: tuple[str, ...]
    parameters: int
    license: str
    verified: str = NOT_RUN
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    model: Literal["vggt", "omega"] = "vggt"
    exact_camera: bool = False

    @property
    def repository(self) -> str:
        """Id of the repository, without the variant."""
        return self.id.partition(":")[0]

    @property
    def num_bytes(self) -> int:
        """Size of the tensors in float32."""
        return 4 * self.parameters


LINGBOT = KnownCheckpoint(
    "robbyant/lingbot-map",
    "lingbot-map-long.pt",
    True,
    ("camera", "depth"),
    1_157_943_540,
    "not stated for the weights (code: Apache-2.0)",
    options=MappingProxyType({"pose": "world_from_camera"}),
    exact_camera=True,
)
LINGBOT_STAGE1 = {"causal": False, "heads": DENSE, "parameters": 1_190_596_120, "exact_camera": False}

CHECKPOINTS: tuple[KnownCheckpoint, ...] = (
    KnownCheckpoint("facebook/VGGT-1B", "model.safetensors", False, RELEASED_HEADS, 1_256_537_516, "non-commercial"),
    KnownCheckpoint(
        "facebook/VGGT-1B-Commercial",
        "vggt_1B_commercial.pt",
        False,
        RELEASED_HEADS,
        1_256_537_516,
        "VGGT commercial license",
    ),
    KnownCheckpoint(
        "facebook/VGGT_tracker_fixed",
        "model_tracker_fixed_e20.pt",
        False,
        RELEASED_HEADS,
        1_256_537_516,
        "non-commercial",
    ),
    KnownCheckpoint(
        "lch01/StreamVGGT", "checkpoints.pth", True, RELEASED_HEADS, 1_256_537_516, "see its page; from VGGT-1B"
    ),
    KnownCheckpoint(
        "yslan/STream3R", "model.safetensors", True, DENSE, 1_190_596_120, "non-commercial", exact_camera=True
    ),
    LINGBOT,
    replace(LINGBOT, id="robbyant/lingbot-map:base", file="lingbot-map.pt"),
    replace(LINGBOT, id="robbyant/lingbot-map:stage1", file="lingbot-map-stage1.pt", **LINGBOT_STAGE1),
    KnownCheckpoint(
        "facebook/VGGT-Omega",
        "vggt_omega_1b_512.pt",
        False,
        ("camera", "depth"),
        1_144_059_977,
        "FAIR Noncommercial Research License (also for outputs)",
        model="omega",
    ),
)
"""Released files. Tensors of "vggt" files have the parameter names of `VGGT`, without prefixes."""

BY_ID = {known.id: known for known in CHECKPOINTS}
MODEL_IDS = [known.id for known in CHECKPOINTS if known.model == "vggt"]
"""Ids that `load_model` accepts."""


def find_known(name: str) -> KnownCheckpoint | None:
    """Look up a checkpoint by id, or by file name among the entries with options.

    Args:
        name: Hugging Face id, or path of a file.

    Returns:
        The entry. None: not in the table.
    """
    if name in BY_ID:
        return BY_ID[name]
    return next((known for known in CHECKPOINTS if known.options and known.file == Path(name).name), None)
