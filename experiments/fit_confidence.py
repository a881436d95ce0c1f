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
from omegaconf import OmegaConf
from torch import Tensor
from tqdm import tqdm

from experiments.depth_network import add_depth_network, load_depth_network
from procedural_scenes.clips import ClipBatches
from streamvggt import VGGT
from streamvggt.bundled import bundled
from streamvggt.cli.export import validate_writable
from streamvggt.data.view import Batch
from streamvggt.evaluation.depth_metrics import median_scale
from streamvggt.flags import some_path, whole

RECIPE = bundled("config") / "data" / "rendered.yaml"
"""The training recipe. Its shares are those of the fit."""
IMAGES = 24
"""Images per batch."""
PIXELS = 1000
"""Random pixels per image."""
STEPS = 100


def main() -> None:
    parser = command_line()
    arguments = parser.parse_args()
    try:
        validate_output(arguments.out)
        clips = open_clips(arguments.clips, arguments.seed)
        model = load_depth_network(arguments)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    clips = clips.for_patches(model.patch_size)
    features, errors = sample_all(model, clips, arguments.batches, arguments.seed)
    weight, bias = fit(features, errors)
    set_confidence(model, weight, bias)
    print("expected error → measured error, by quintiles of the expected error:")
    expected = 1 / (1 + (features @ weight + bias).exp())
    for part in expected.argsort().chunk(5):
        print(f"{expected[part].mean():.3f} → {errors[part].mean():.3f}")
    model.half().save_pretrained(arguments.out)
    print(f"Wrote {arguments.out}")


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_depth_network(parser)
    parser.add_argument("--clips", type=some_path, required=True, help="rendered clips of the training")
    parser.add_argument(
        "--batches", type=whole(), default=60, help=f"number of batches of {IMAGES} images (default: 60)"
    )
    parser.add_argument(
        "--seed", type=whole(0), default=0, help="seed of clips and pixels; one seed gives one file (default: 0)"
    )
    parser.add_argument(
        "--out", type=some_path, required=True, help="new folder for the network, with weights in half precision"
    )
    return parser


def validate_output(folder: Path) -> None:
    """Reject an output folder that cannot be written to or contains files.

    Raises:
        OSError: If the folder is not writable or not empty.
    """
    validate_writable(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"--out: {folder} already contains files. Choose another folder.")


def open_clips(root: Path, seed: int) -> ClipBatches:
    """Return the batches of the fit. Folders are drawn with the shares of the training recipe.

    Raises:
        FileNotFoundError: If a folder of the recipe contains no clips.
        ValueError: If the clips are damaged or have fewer than 24 frames.
    """
    shares = OmegaConf.load(RECIPE).train.shares
    return ClipBatches(str(root), dict(shares), num_frames=(4, 8, 24), max_images_per_process=IMAGES, seed=seed)


def sample_all(model: VGGT, clips: ClipBatches, num_batches: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the samples of the first batches. (N, C), (N)"""
    generator = torch.Generator().manual_seed(seed)
    numbers = tqdm(range(num_batches), desc="sampling", unit="batch", disable=None)
    features, errors = zip(*(sample(model, clips[number], generator) for number in numbers), strict=True)
    return torch.cat(features), torch.cat(errors)


@torch.no_grad()
def set_confidence(model: VGGT, weight: Tensor, bias: Tensor) -> None:
    """Replace the channel of the confidence in the last layer of the depth head. weight: (C,)"""
    last = model.depth_head.scratch.output_conv2[-1]
    last.weight[1, :, 0, 0], last.bias[1] = weight, bias


@torch.no_grad()
def sample(model: VGGT, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
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
    chosen = torch.randint(len(errors), (PIXELS * depth.shape[0] * depth.shape[1],), generator=generator)
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
