"""Measure the accuracy of half precision: the whole network, and the heads alone.

    python benchmarks/precision.py --out benchmarks/precision.md

Random weights that keep the variance from layer to layer, LayerScale 0.2, so that every layer has an effect.
"""

import argparse

import torch
from environment_info import output_path, publish
from streaming import HEADS, MEDIUM

from streamvggt import load_model
from streamvggt.flags import whole
from streamvggt.model.vggt import VGGT


def network(dtype: torch.dtype, head_dtype: torch.dtype, device: str) -> VGGT:
    model = load_model("random:full", heads=HEADS, device=device, **MEDIUM)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith(".gamma"):
            torch.nn.init.constant_(parameter, 0.2)
        elif parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="linear")
    model.to(head_dtype)
    model.aggregator.to(dtype)
    if dtype != head_dtype:  # the heads take their tokens in their own dtype
        for head in (model.camera_head, model.depth_head, model.point_head):
            head.register_forward_pre_hook(lambda _, inputs: (as_dtype(inputs[0], head_dtype), *inputs[1:]))
    return model


def as_dtype(tokens, dtype: torch.dtype):
    return tokens.to(dtype) if isinstance(tokens, torch.Tensor) else [token.to(dtype) for token in tokens]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--image-size", type=whole(1, 16_384), nargs=2, default=(210, 280), metavar=("H", "W"))
    parser.add_argument("--out", type=output_path, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(3, 3, 12, 16), arguments.image_size, mode="bicubic").clamp(0, 1)
    images = images[None].to(arguments.device)
    cases = {
        "bfloat16 blocks, float32 heads": (torch.bfloat16, torch.float32),
        "float32 blocks, bfloat16 heads": (torch.float32, torch.bfloat16),
        "bfloat16 throughout": (torch.bfloat16, torch.bfloat16),
        "float16 blocks, float32 heads": (torch.float16, torch.float32),
        "float32 blocks, float16 heads": (torch.float32, torch.float16),
        "float16 throughout": (torch.float16, torch.float16),
    }
    with torch.no_grad():
        exact = network(torch.float32, torch.float32, arguments.device)(images)
        rows = []
        for name, dtypes in cases.items():
            outputs = network(*dtypes, arguments.device)(images)
            depth = relative(outputs.depth, exact.depth)
            points = relative(outputs.points, exact.points)
            conf = relative(outputs.depth_conf, exact.depth_conf)
            pose = relative(outputs.pose_enc[:, :, :3], exact.pose_enc[:, :, :3])
            rows.append(f"| {name} | {depth:.2e} | {conf:.2e} | {points:.2e} | {pose:.2e} |")
    height, width = arguments.image_size
    lines = [
        "# Half precision against float32",
        "",
        f"ViT-S size, 12 layers, 3 frames of {width}×{height}. Random weights that keep the variance from layer to",
        "layer, LayerScale 0.2. Mean difference from float32 over the standard deviation of the float32 result. In",
        "half precision the last convolution of a dense head, its activation and the sum of the pose refinements",
        "stay float32.",
        "",
        "| | depth | depth confidence | points | translation |",
        "|---|---|---|---|---|",
        *rows,
    ]
    publish(lines, arguments.out, torch.device(arguments.device))


def relative(outputs: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the mean difference divided by the standard deviation of the exact result."""
    return ((outputs - exact).abs().mean() / exact.std()).item()


if __name__ == "__main__":
    main()
