"""Small VGGT-Omega networks and files in the published layout."""

from pathlib import Path

import torch
from small_models import formula_weight

from streamvggt.model.omega.network import VGGTOmega
from streamvggt.model.omega.rotation import rotary_periods
from streamvggt.model.omega.weights import published_shapes

GOLDEN = {
    "embed_dim": 128,
    "num_heads": 2,
    "depth": 8,
    "register_blocks": (2, 6),
    "encoder_depth": 3,
    "encoder_num_heads": 2,
    "dpt_layers": (1, 3, 5, 7),
    "dpt_features": 64,
    "dpt_channels": (48, 96, 192, 192),
}

TINY = {
    "embed_dim": 32,
    "num_heads": 2,
    "depth": 4,
    "register_blocks": (2,),
    "encoder_depth": 2,
    "encoder_num_heads": 4,
    "camera_trunk_depth": 2,
    "dpt_layers": (0, 1, 2, 3),
    "dpt_features": 16,
    "dpt_channels": (8, 16, 16, 16),
}


def published_tensors(**sizes) -> dict[str, torch.Tensor]:
    """Tensors of a published file whose numbers are given by their names."""
    with torch.device("meta"):
        shapes = published_shapes(VGGTOmega(**sizes))
    tensors = {name: formula_weight(name, shape) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        if name.endswith(".bias_mask"):
            tensor[:] = torch.tensor([1.0, 0, 1]).repeat_interleave(len(tensor) // 3)
        if name.endswith(".periods"):
            tensor[:] = rotary_periods(4 * len(tensor))
    return tensors


def write_omega(path: Path, **sizes) -> Path:
    torch.save(published_tensors(**sizes), path)
    return path
