"""VGGT-Omega: predict cameras and depth from images of a scene. Not causal, so streaming is not supported.

B batch · S frames · C channels · H×W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamvggt.model.omega.aggregator import OmegaAggregator
from streamvggt.model.omega.config import OmegaConfig
from streamvggt.model.omega.heads import OmegaCameraHead, OmegaDepthHead
from streamvggt.prediction import Prediction

LICENSE_NOTE = (
    "VGGT-Omega's weights are under the FAIR Noncommercial Research License, which covers outputs and results too: "
    "a student distilled from them is for noncommercial research only; keep it apart from other networks"
)


class VGGTOmega(nn.Module):
    """Network of facebookresearch/vggt-omega, built from the blocks of this repository.

    The network predicts cameras, depth and points of all frames in the conventions of `Prediction`. There is no track
    head and no stream memory. The heads run in at least float32, also under autocast, like the reference
    implementation.
    """

    license_note = LICENSE_NOTE

    def __init__(self, *, attention: str = "sdpa", layer_scale: float = 0.01, **sizes):
        """Build the network with random weights.

        Args:
            attention: Attention kernel of encoder and aggregator: "sdpa", "math", or "flash" (half precision on CUDA).
            layer_scale: Initial LayerScale factor in aggregator and camera head.
            sizes: Fields of `OmegaConfig`; default: the released network with 1.14 B parameters.

        Raises:
            ValueError: If a size has the wrong type, is out of bounds or contradicts another.
        """
        super().__init__()
        self.config = OmegaConfig(**sizes)
        self.patch_size = self.config.patch_size
        self.frames_per_chunk = 8
        """Maximum number of frames per call of the depth head, to limit its memory."""
        self.aggregator = OmegaAggregator(self.config, attention, layer_scale)
        self.camera_head = OmegaCameraHead(self.config, layer_scale=layer_scale)
        self.depth_head = OmegaDepthHead(self.config)

    def forward(self, images: Tensor) -> Prediction:
        """Run the network on a full sequence.

        Args:
            images: RGB in [0, 1]. H and W are multiples of the patch size. (B, S, 3, H, W)

        Returns:
            Prediction with `pose_enc`, `depth`, `depth_conf`, `points` and `points_conf`. The points are the depth,
            unprojected with the predicted cameras. `points_conf` equals `depth_conf`.

        Raises:
            ValueError: If the images have a wrong shape or dtype.
        """
        self.check(images)
        image_size = (images.shape[-2], images.shape[-1])
        last, num_special_tokens = self.config.depth - 1, self.aggregator.num_special_tokens
        tokens = self.aggregator(images, {*self.config.dpt_layers, last})
        with torch.autocast(images.device.type, enabled=False):
            exact = self.camera_head.trunk_norm.weight.dtype
            tokens = {layer: of.to(exact) for layer, of in tokens.items()}
            pose_enc = self.camera_head(tokens[last][:, :, :num_special_tokens])
            patch_tokens = [tokens[layer][:, :, num_special_tokens:].flatten(0, 1) for layer in self.config.dpt_layers]
            chunks = zip(*(level.split(self.frames_per_chunk) for level in patch_tokens), strict=True)
            maps = zip(*(self.depth_head(chunk, image_size) for chunk in chunks), strict=True)
            depth, confidence = (torch.cat(of_chunks).unflatten(0, images.shape[:2]) for of_chunks in maps)
            return Prediction(image_size, pose_enc=pose_enc, depth=depth, depth_conf=confidence).with_points()

    def check(self, images: Tensor) -> None:
        """Check the shape and dtype of images.

        Raises:
            ValueError: If the images have a wrong shape or dtype.
        """
        if images.ndim != 5 or images.shape[2] != 3 or not images.is_floating_point() or 0 in images.shape:
            raise ValueError(
                f"images: expected floating point (B, S, 3, H, W), got {images.dtype} {tuple(images.shape)}."
            )
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"images: expected sides that are multiples of {self.patch_size}, got {height}×{width}. Resize them."
            )
