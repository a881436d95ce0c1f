"""Gradients of the dense head, which works in place and outside of autograd in parts."""

import pytest
import torch

from streamvggt.model.heads.dpt import DPTHead


@pytest.mark.parametrize("out_channels, skip_channels", [(4, ()), (None, ()), (2, (6, 6))])
def test_the_gradient_is_the_slope(out_channels, skip_channels):
    """Along a random direction of the inputs and parameters, against a central difference in float64."""
    torch.manual_seed(0)
    head = DPTHead(
        8, features=8, channels=(4, 4, 8, 8), out_channels=out_channels, skip_channels=skip_channels
    ).double()
    tokens = [torch.randn(2, 6, 8).double() for _ in range(4)]
    fine = [torch.randn(2, width, 28 // k, 42 // k).double() for width, k in zip(skip_channels, (2, 4), strict=False)]
    variables = [*tokens, *head.parameters()]
    directions = [torch.randn_like(x) for x in variables]

    def output() -> torch.Tensor:
        return head(tokens, (28, 42), fine).square().mean()

    for x in variables:
        x.requires_grad_()
    gradients = torch.autograd.grad(output(), variables)
    slope = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
    step, values = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for x, direction in zip(variables, directions, strict=True):
                x += sign * step * direction
            values.append(output())
    torch.testing.assert_close(slope, (values[0] - values[1]) / (2 * step), rtol=1e-5, atol=0)
