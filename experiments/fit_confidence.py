"""Fit the depth confidence of a small network to its errors. All other weights stay as they are.

    python -m experiments.fit_confidence ckpt/tiny-vggt --no-causal --clips data/train/world --out results/tiny-vggt

The depth loss c·e - α·log(c) of VGGT (arXiv 2503.11651, Eq. 3) has its minimum at the confidence c = α / e. Small
networks are trained with α = 0.1 and have larger relative errors e, so that c is 1 everywhere, its minimum. Here, the
last layer of the confidence is fitted with α = 1: 1 / c estimates the relative depth error of a pixel.

N pixels · C channels of the last layer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import trange

from procedural_scenes.clips import ClipBatches
from streamvggt import VGGT, load_model
from streamvggt.data.view import Batch
from streamvggt.evaluation.depth_metrics import median_scale

PIXELS = 1000
"""Random pixels per image."""
STEPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--causal", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--clips", required=True, help="rendered clips of the training (docs/training.md)")
    parser.add_argument("--batches", type=int, default=60, help="batches of 24 images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights in half precision")
    arguments = parser.parse_args()
    model = load_model(arguments.weights, causal=arguments.causal)
    clips = ClipBatches(
        arguments.clips,
        {"rooms": 0.65, "video": 0.25, "world": 0.1},
        num_frames=(4, 8, 24),
        max_images_per_process=24,
        patch_size=model.patch_size,
    )
    samples = [sample(model, clips[index]) for index in trange(arguments.batches, desc="sampling", unit="batch")]
    features, errors = (torch.cat(parts) for parts in zip(*samples, strict=True))
    last = model.depth_head.scratch.output_conv2[-1]
    weight, bias = fit(features, errors)
    with torch.no_grad():
        last.weight[1, :, 0, 0], last.bias[1] = weight, bias
    expected = 1 / (1 + (features @ weight + bias).exp())
    print("expected error → measured error, by quintiles of the expected error:")
    for part in expected.argsort().chunk(5):
        print(f"{expected[part].mean():.3f} → {errors[part].mean():.3f}")
    model.half().save_pretrained(arguments.out)


@torch.no_grad()
def sample(model: VGGT, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return inputs of the last layer and relative depth errors of random valid pixels. (N, C), (N)

    The error is the difference of the logarithms, with one scale per sequence.
    """
    maps: list[Tensor] = []
    hook = model.depth_head.scratch.output_conv2[1].register_forward_hook(lambda _, __, output: maps.append(output))
    try:
        depth = model(batch.images, heads=("depth",)).depth[..., 0]
    finally:
        hook.remove()
    features = torch.cat(maps).movedim(1, -1).flatten(0, 2)
    scaled = torch.stack([median_scale(*each) for each in zip(depth, batch.depth, batch.valid, strict=True)])
    errors = (scaled.log() - batch.depth.log()).abs().flatten()
    chosen = torch.randint(len(errors), (PIXELS * depth.shape[0] * depth.shape[1],))
    chosen = chosen[batch.valid.flatten()[chosen]]
    return features[chosen], errors[chosen]


def fit(features: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias that minimize the mean of c·e - log(c) with c = 1 + exp(weight · features + bias).

    Args:
        features: (N, C)
        errors: (N)
    """
    mean, scale = features.mean(0), features.std(0).clamp(min=1e-6)
    normalized = (features - mean) / scale
    parameters = torch.zeros(features.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        exponent = normalized @ parameters[:-1] + parameters[-1]
        value = ((1 + exponent.exp()) * errors - torch.nn.functional.softplus(exponent)).mean()
        value.backward()
        return value

    optimizer.step(loss)
    weight = parameters[:-1].detach() / scale
    return weight, parameters[-1].detach() - weight @ mean


if __name__ == "__main__":
    main()
