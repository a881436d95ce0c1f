"""The loss of tracks with a network that has diverged."""

import torch

from streamvggt.losses.track import cross_entropy


def test_cross_entropy_of_nan_is_nan_and_of_others_as_before():
    probability = torch.tensor([0.25, float("nan"), 0.0, 1.0], requires_grad=True)
    target = torch.tensor([True, True, False, False])
    entropy = cross_entropy(probability, target)
    assert entropy.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(entropy[0], -torch.tensor(0.25).log())
    entropy[[0, 2, 3]].sum().backward()
    assert probability.grad.isfinite()[[0, 2, 3]].all() and probability.grad[0] == -4
