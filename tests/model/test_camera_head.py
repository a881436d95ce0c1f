"""The camera head."""

import torch

from streamvggt.layers.attention import CausalPattern
from streamvggt.model.heads.camera import CameraHead


def test_iterations_as_batch_equal_iterations_in_turn():
    """Training runs all iterations as one batch: same pose encodings and same gradients."""
    torch.manual_seed(0)
    head = CameraHead(24, trunk_depth=2, num_heads=2, num_iterations=3, layer_scale=0.5).double()
    tokens, weights = torch.randn(2, 5, 24, dtype=torch.double), torch.randn(3, 2, 5, 9, dtype=torch.double)
    pattern = [CausalPattern(5)] * 2
    ways = []
    for run in (
        lambda tokens: head(tokens, [pattern]),
        lambda tokens: head(tokens, [pattern] * 3),  # one pattern per iteration: in turn
    ):
        leaf = tokens.clone().requires_grad_()
        head.zero_grad()
        stages = torch.stack(run(leaf))
        (stages * weights).sum().backward()
        ways.append([stages.detach(), leaf.grad, *(parameter.grad for parameter in head.parameters())])
    for batched, in_turn in zip(*ways, strict=True):
        assert in_turn.abs().max() > 0
        torch.testing.assert_close(batched, in_turn, rtol=1e-10, atol=1e-12)
