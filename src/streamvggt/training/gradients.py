"""Gradient scaling per module."""

from __future__ import annotations

from torch import nn


def scale_gradient(model: nn.Module, name: str, scale: float) -> None:
    """Scale the gradient from a module to its first input. Gradients of the module's parameters are unchanged.

    Args:
        model: The network.
        name: Name of the module.
        scale: Factor on the gradient.

    Raises:
        ValueError: If there is no module with this name.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise ValueError(f"gradient_scales: the network has no module {name!r}.")

    def before(module, inputs):
        first, *others = inputs
        if not first.requires_grad:
            return inputs
        mine = first.view_as(first)  # other modules can use the same tensor
        mine.register_hook(lambda gradient: gradient * scale)
        return (mine, *others)

    modules[name].register_forward_pre_hook(before)
