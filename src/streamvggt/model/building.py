"""Convert weights during network construction, so that memory contains one copy of the weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from streamvggt.model.shapes_only import shapes_only

Network = TypeVar("Network", bound=nn.Module)


def build_converted(build: Callable[[], Network], convert: Callable[[str, Tensor], Tensor]) -> Network:
    """Build a network and convert its tensors part by part.

    Parts are the entries of each `ModuleList` and the direct submodules of the network, which constructors do not
    modify after registration. The network is built on the meta device first, because full tensor names are available
    only after construction.

    Args:
        build: Constructor of the network. Must be deterministic.
        convert: Function of a state-dict name and a tensor that returns the converted tensor.

    Returns:
        The network with converted parameters and persistent buffers.
    """
    order: list[nn.Module] = []
    with _registering(lambda parent, module: order.append(module)), shapes_only():
        sketch = build()
    names = {module: name for name, module in sketch.named_modules()}
    expected = iter([names.get(module) for module in order])
    done: set[nn.Module] = set()

    def convert_part(part: nn.Module, prefix: str) -> None:
        for name, module in part.named_modules(prefix=prefix):
            if module not in done:
                _convert_own(module, f"{name}." if name else "", convert)
                done.add(module)

    def convert_next(parent: nn.Module, module: nn.Module) -> None:
        name = next(expected)
        if name is not None and (isinstance(parent, nn.ModuleList) or "." not in name):
            convert_part(module, name)

    with _registering(convert_next):
        network = build()
    convert_part(network, "")
    return network


@contextmanager
def _registering(act: Callable[[nn.Module, nn.Module], None]) -> Iterator[None]:
    """Call `act(parent, module)` for each submodule that this thread registers within the context."""
    thread = threading.get_ident()

    def hook(parent: nn.Module, name: str, module: nn.Module | None) -> None:
        if module is not None and threading.get_ident() == thread:
            act(parent, module)

    handle = register_module_module_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _convert_own(module: nn.Module, prefix: str, convert: Callable[[str, Tensor], Tensor]) -> None:
    """Convert the parameters and persistent buffers of a module, without its submodules."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            converted = convert(prefix + name, parameter.detach())
            module._parameters[name] = nn.Parameter(converted, requires_grad=parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            module._buffers[name] = convert(prefix + name, buffer)
