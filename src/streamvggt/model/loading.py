"""Load the weights of a network that a function builds, and check them strictly."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from streamvggt.choices import RELEASED_HEADS
from streamvggt.layers.attention import check_kernel
from streamvggt.model.building import build_converted
from streamvggt.model.checkpoints import KnownCheckpoint
from streamvggt.model.device import exact_convolutions, to_channels_last_layout
from streamvggt.model.infer_config import infer_config
from streamvggt.model.random_networks import build_named, init_random_model, is_random
from streamvggt.model.shapes_only import shapes_only
from streamvggt.model.tensor_check import check_tensors, heads_in
from streamvggt.model.weights_file import Checkpoint, open_checkpoint
from streamvggt.model.weights_path import resolve_path

FLOAT32_PREFIXES = ("track_head.tracker.",)
"""Parts that stay float32 in half-precision networks: the tracker embeds pixels as angles of up to 1000 radians."""

Network = TypeVar("Network", bound=nn.Module)


def load_network(
    build: Callable[[dict[str, Any]], Network],
    name_or_path: str | os.PathLike,
    *,
    causal: bool | None = None,
    heads: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    activation_checkpointing: bool = False,
    **config,
) -> Network:
    """Load a network. Arguments, result and errors are those of `load_model`, except `build`.

    Tensors are converted one at a time, so memory contains one copy of the weights.

    Args:
        build: Function of the arguments of `VGGT` that returns the network.
    """
    check_kernel(attention, torch.device(device), dtype)
    options = {"attention": attention, "activation_checkpointing": activation_checkpointing}
    name = os.fspath(name_or_path)
    if torch.device(device).type == "cuda" and dtype == torch.float32:
        exact_convolutions()

    def placed(tensor_name: str, tensor: Tensor, copy: bool = False) -> Tensor:
        wanted = torch.float32 if tensor_name.startswith(FLOAT32_PREFIXES) else dtype
        return to_channels_last_layout(tensor, torch.device(device), wanted, copy=copy)

    if is_random(name):
        sizes = {"causal": True if causal is None else causal, "heads": heads or RELEASED_HEADS, **config}
        return build_converted(lambda: init_random_model(build, name, {**sizes, **options}), placed).eval()
    path, known = resolve_path(name)
    checkpoint = open_checkpoint(path)
    found = _network_config(checkpoint, known, config, causal, heads)
    with shapes_only():
        model = build_named(build, {**found, **options}, checkpoint.source)
    check_tensors(model, found["heads"], checkpoint)
    # Copy memory-mapped tensors, so that the network does not depend on the file.
    loaded = {name: placed(name, checkpoint.read(name), copy=True) for name in model.state_dict()}
    model.load_state_dict(loaded, assign=True)
    return model.eval()


def _network_config(
    checkpoint: Checkpoint,
    known: KnownCheckpoint | None,
    config: Mapping[str, Any],
    causal: bool | None,
    heads: Sequence[str] | None,
) -> dict[str, Any]:
    """Combine the fields of the file, of the published checkpoint and of the caller, who has priority."""
    found = checkpoint.config or infer_config(checkpoint.shapes, checkpoint.source, config)
    published = {"causal": known.causal, **known.options} if known else {"causal": True}
    found = {**published, **found, **config}
    if causal is not None:
        found["causal"] = causal
    if heads is not None:
        found["heads"] = heads
    elif "heads" not in found:
        found["heads"] = heads_in(checkpoint)
    return found
