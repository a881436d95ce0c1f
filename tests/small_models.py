"""Networks small enough for a test, with weights that make every part count."""

import zlib

import numpy as np
import torch

from streamvggt import VGGT, StreamVGGT
from streamvggt.model.shapes_only import shapes_only

TINY = {
    "image_size": 56,
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "encoder_depth": 2,
    "encoder_num_heads": 2,
    "camera_trunk_depth": 2,
    "camera_num_heads": 4,
    "dpt_layers": (0, 1, 2, 3),
    "dpt_features": 16,
    "dpt_channels": (8, 16, 16, 16),
    "track_features": 16,
    "track_levels": 2,
    "track_dim": 32,
    "track_depth": 1,
    "track_virtual": 4,
}

SHALLOW = {
    "depth": 2,
    "dpt_layers": (0, 0, 1, 1),
    "encoder_depth": 1,
    "camera_trunk_depth": 1,
    "camera_iterations": 2,
}
"""Fewer layers, for tests of many steps: `tiny(**SHALLOW)`."""

GOLDEN_SIZE = {
    "image_size": 70,
    "embed_dim": 384,
    "depth": 8,
    "num_heads": 6,
    "encoder_depth": 12,
    "encoder_num_heads": 6,
    "camera_trunk_depth": 2,
    "camera_num_heads": 8,
    "dpt_layers": (1, 3, 5, 7),
    "dpt_features": 64,
    "dpt_channels": (48, 96, 192, 192),
    "track_levels": 4,
}

EMBEDDINGS = {
    "scale_token",
    "camera_token",
    "register_token",
    "cls_token",
    "register_tokens",
    "pos_embed",
    "mask_token",
    "empty_pose_tokens",
    "query_ref_token",
    "storage_tokens",
}


_GENERATOR = np.random.RandomState()  # a new one takes longer to make than the values of most tensors


def formula_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor that its name alone determines; the formula of the golden outputs."""
    _GENERATOR.seed(zlib.crc32(name.encode()))
    n = _GENERATOR.standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "gamma":
        n = 0.2 + 0.05 * n
    elif last in EMBEDDINGS:
        n = 0.5 * n
    elif n.ndim == 1:
        n = 1 + 0.1 * n if last == "weight" else 0.1 * n
    else:
        n = n / np.sqrt(np.prod(n.shape[1:]))
    return torch.from_numpy(n.astype(np.float32))


def formula_weights(model: VGGT) -> VGGT:
    model.load_state_dict({name: formula_weight(name, tuple(t.shape)) for name, t in model.state_dict().items()})
    return model.eval()


def with_weights_of(model: VGGT, network: type[VGGT], **sizes) -> VGGT:
    """Another network that shares the weights of a model."""
    with shapes_only():
        other = network(**sizes)
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval()


def tiny(causal: bool = True, dtype: torch.dtype = torch.float64, **options) -> VGGT:
    """A network of 60 thousand parameters; float64, so that only a wrong line makes a difference."""
    network = (StreamVGGT if causal else VGGT)(**{**TINY, **options})
    return formula_weights(network).to(dtype)


def images(batch: int, frames: int, height: int = 28, width: int = 42, seed: int = 0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, frames, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def golden_input(seed: int, batch: int, frames: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, S, 3, H, W) and query points (B, 5, 2) of the golden outputs."""
    pixels = np.random.RandomState(seed).uniform(0, 1, (batch, frames, 3, height, width))
    queries = np.random.RandomState(seed + 1).uniform(2, min(height, width) - 3, (batch, 5, 2))
    return torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(queries.astype(np.float32))


def assert_same(ours, theirs, tolerance: float = 1e-11) -> None:
    """Two predictions agree in every field, of which they have the same."""
    a, b = ours.numpy(), theirs.numpy()
    assert a.keys() == b.keys()
    for name in a:
        x, y = getattr(ours, name), getattr(theirs, name)
        assert x.shape == y.shape, name
        scale = max(1.0, y.abs().max().item())
        assert (x - y).abs().max().item() <= tolerance * scale, name
