"""The fitted confidence is the reciprocal of the expected error, and is the only thing that changes."""

import torch
from small_models import tiny

from experiments.fit_confidence import fit, sample
from procedural_scenes.world import SyntheticScenes


def test_the_confidence_is_the_reciprocal_of_the_expected_error():
    random = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(50_000, 4, generator=random) + 2
    expected = 1 / (1 + (features @ torch.tensor([0.3, -0.2, 0.1, 0.0]) + 1).exp())
    errors = expected * 2 * torch.rand(len(features), generator=random)
    weight, bias = fit(features, errors)
    fitted = 1 / (1 + (features @ weight + bias).exp())
    torch.testing.assert_close(fitted, expected, rtol=0.05, atol=0)


def test_samples_are_inputs_of_the_last_layer_and_errors_of_valid_pixels():
    model = tiny(dtype=torch.float32, heads=("camera", "depth"))
    batch = SyntheticScenes("train").batch(0, 2, 3, 28, 42)
    features, errors = sample(model, batch)
    last = model.depth_head.scratch.output_conv2[-1]
    assert features.shape == (len(errors), last.in_channels) and errors.isfinite().all() and len(errors) > 3000
    depth = model(batch.images, heads=("depth",)).depth[..., 0]
    logarithms = (features @ last.weight[0, :, 0, 0] + last.bias[0]).unique()
    assert torch.isin(logarithms.round(decimals=3), depth.log().round(decimals=3)).float().mean() > 0.9
