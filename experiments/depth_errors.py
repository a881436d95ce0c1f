"""Split the depth error of a network by cause: scale, resolution, number of frames, edges and distance.

    python -m experiments.depth_errors tiny-vggt --no-causal --scene-type rooms --sequences 48

The numbers are mean relative errors (AbsRel) over the valid pixels of all validation sequences.

S frames · H×W pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.depth_network import add_depth_network, load_depth_network
from procedural_scenes.scene import STYLES
from streamvggt import VGGT
from streamvggt.evaluation.depth_metrics import median_scale
from streamvggt.evaluation.synthetic import held_out_sequences
from streamvggt.flags import whole

SQUARES = (16, 8)
"""Sides in pixels of the squares whose mean is corrected."""
EDGE_RATIO = 1.1
"""Minimum ratio of the depths of two neighboring pixels at an edge."""
EDGE_DISTANCE = 4
"""Maximum distance in pixels from an edge."""


def main() -> None:
    parser = command_line()
    arguments = parser.parse_args()
    try:
        model = load_depth_network(arguments)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    side = model.config.image_size
    sums: dict[str, Tensor] = {}
    for batch in held_out_sequences("val", arguments.sequences, arguments.frames, side, side, arguments.scene_type):
        truth, valid = batch.depth[0], batch.valid[0]
        for name, error, counted in error_parts(*predict(model, batch.images), truth, valid):
            sums[name] = sums.get(name, 0) + torch.stack([error[counted].sum(), counted.sum()]).double()
    print("| | AbsRel | pixels |\n|---|---|---|")
    for name, (error, count) in sums.items():
        print(f"| {name} | {error / count:.3f} | {count / next(iter(sums.values()))[1]:.0%} |")


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_depth_network(parser)
    parser.add_argument("--scene-type", choices=tuple(STYLES), default="rooms", help="(default: rooms)")
    parser.add_argument("--frames", type=whole(), default=8, help="frames per sequence (default: 8)")
    parser.add_argument("--sequences", type=whole(), default=48, help="number of sequences (default: 48)")
    return parser


@torch.no_grad()
def predict(model: VGGT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the depth of a sequence, and that of its frames as sequences of one. (S, H, W) each

    Args:
        images: (1, S, 3, H, W)
    """
    together = model(images, heads=("depth",)).depth[0, ..., 0]
    alone = model(images[0, :, None], heads=("depth",)).depth[:, 0, ..., 0]
    return together, alone


def error_parts(depth: Tensor, alone: Tensor, truth: Tensor, valid: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, relative errors and counted pixels of each part. (S, H, W) each

    Args:
        depth: Depth predicted from all frames. (S, H, W)
        alone: Depth predicted from each frame alone. (S, H, W)
        truth, valid: Ground-truth depth and its valid pixels. (S, H, W)
    """
    scaled = median_scale(depth, truth, valid)
    error = relative(scaled, truth)
    yield "one scale per sequence", error, valid
    yield "one scale per frame", relative(scale_frames(depth, truth, valid), truth), valid
    yield "each frame alone, one scale per frame", relative(scale_frames(alone, truth, valid), truth), valid
    ratio = torch.where(valid, truth / depth, 1).log()
    log_truth = torch.where(valid, truth, 1).log()
    for side in SQUARES:
        corrected = depth * square_means(ratio, valid, side).exp()
        yield f"correct mean of each square of {side} pixels", relative(corrected, truth), valid
        smooth = square_means(log_truth, valid, side).exp()
        yield f"ground truth, mean of each square of {side} pixels", relative(smooth, truth), valid
    edges = near_edges(log_truth)
    yield f"at most {EDGE_DISTANCE} pixels from a depth edge", error, valid & edges
    yield "elsewhere", error, valid & ~edges
    if valid.any():
        near, far = torch.quantile(truth[valid], torch.tensor([0.25, 0.75]))
        yield "nearest quarter", error, valid & (truth <= near)
        yield "farthest quarter", error, valid & (truth >= far)


def relative(depth: Tensor, truth: Tensor) -> Tensor:
    return (depth - truth).abs() / truth


def scale_frames(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Scale each frame by its median ratio to the ground truth. Frames without valid pixels stay."""
    frames = zip(depth[:, None], truth[:, None], valid[:, None], strict=True)
    return torch.cat([median_scale(*frame) if frame[2].any() else frame[0] for frame in frames])


def square_means(values: Tensor, valid: Tensor, side: int) -> Tensor:
    """Replace each valid pixel by the mean over the valid pixels of its square. H and W are multiples of `side`."""
    weights = valid.to(values.dtype)
    means = F.avg_pool2d(values * weights, side) / F.avg_pool2d(weights, side).clamp(min=1e-6)
    return means.repeat_interleave(side, -1).repeat_interleave(side, -2)


def near_edges(log_depth: Tensor) -> Tensor:
    """Return whether a pixel is at most `EDGE_DISTANCE` pixels (along each axis) from a depth edge. Bool (S, H, W)"""
    threshold = torch.tensor(EDGE_RATIO).log()
    edges = torch.zeros_like(log_depth)
    edges[..., 1:] = (log_depth.diff(dim=-1).abs() > threshold).to(edges)
    edges[..., 1:, :] += (log_depth.diff(dim=-2).abs() > threshold).to(edges)
    return F.max_pool2d(edges, 2 * EDGE_DISTANCE + 1, 1, EDGE_DISTANCE) > 0


if __name__ == "__main__":
    main()
