"""Auxiliary losses on attention and tokens from ground-truth geometry, for small networks trained on little data.

With hundreds of millions of training images, correspondences between patches emerge without supervision. With one
million images, the predicted poses remain at the identity. Ground-truth depth and cameras give the matches between all
pairs of frames, which supervise attention and encoder features. In addition, every global block has deep supervision.
The trained network does not contain the auxiliary parameters.

B sequences · S frames · P tokens per frame · N heads · D head width · C channels · H×W pixels · h×w patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from streamvggt.data.view import Batch
from streamvggt.losses.camera import CameraTerm
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction
from streamvggt.training.geometry_errors import PLACE, attention_error, deep_error, feature_error, position_error
from streamvggt.training.matches import Targets, find_matches
from streamvggt.training.supervision import GroundTruth

REST_POSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.1, 1.1)
"""Initial pose encoding of the deep supervision: identity pose and a typical field of view."""
REST_PATCH = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Initial output for patch tokens: position in the first frame, point in the first camera, log depth."""


@dataclass
class Activations:
    """Activations of one forward pass.

    Attributes:
        queries, keys: Queries and keys of the supervised global blocks, by block. (B, N, S·P, D)
        tokens: Outputs of all global blocks, by block. (B, S·P, C)
        features: Output of the encoder. (B·S, h·w, C + …)
    """

    queries: dict[int, Tensor] = field(default_factory=dict)
    keys: dict[int, Tensor] = field(default_factory=dict)
    tokens: dict[int, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


class GeometryLosses(nn.Module):
    """Correspondence losses on attention and encoder features, and deep supervision of tokens.

    - Attention, in each of the `layers`: head 0 attends from each patch to its match in the first frame, among all
      attended keys. Head 1 attends to the match in every other frame, among the keys of that frame only, because no
      token encodes the order of the later frames. Targets are bilinear weights of the four nearest patches.
    - Features: linear projections of encoder features match patches between frames (InfoNCE, arXiv 1807.03748).
    - Deep supervision: linear functions of the tokens after every global block predict the point of the patch in the
      first camera, its log depth, and the pose encoding. In `layers` and in the last block they also predict the
      position of the patch in the first frame.

    The parameters are trained with the network and are not part of the saved weights.
    """

    def __init__(
        self,
        *,
        attention: float = 0.05,
        place: float = 0.15,
        features: float = 0.1,
        deep: float = 0.3,
        camera: float = 1.0,
        layers: Sequence[int] = (0, 1),
        channels: int = 64,
        temperature: float = 0.07,
        tolerance: float = 0.05,
    ):
        """Create the losses.

        Args:
            attention, place, features, deep, camera: Weights of the losses. `deep` and `camera` are averaged over the
                blocks.
            layers: Global blocks with supervised attention, counted from 0.
            channels: Channels of the feature projections.
            temperature: Divisor of the cosine similarities of features.
            tolerance: Maximum relative depth error of visible patches.
        """
        super().__init__()
        self.attention, self.place, self.features, self.deep, self.camera = attention, place, features, deep, camera
        self.layers, self.channels = tuple(layers), channels
        self.temperature, self.tolerance = temperature, tolerance

    def attach(self, network: VGGT) -> None:
        """Create the parameters for the channels and blocks of a network."""
        dim, depth = network.aggregator.embed_dim, network.aggregator.depth
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.of_patches = nn.ModuleList(_readout(dim, REST_PATCH) for _ in range(depth))
        self.of_cameras = nn.ModuleList(_readout(dim, REST_POSE) for _ in range(depth))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.of_features = nn.Linear(dim, self.channels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the losses."""
        return ("attention", "place", "features", "deep", "deep_camera")

    @contextmanager
    def record(self, network: VGGT) -> Iterator[Activations]:
        """Record the activations that the losses use, in forward passes within the context."""
        seen = Activations()

        def record_features(module, inputs, output):
            seen.features = output

        def record_qk(layer):
            def before(module, inputs):
                x, rotation, pattern = inputs

                def recording(q, k, v, kernel):
                    seen.queries[layer], seen.keys[layer] = q, k
                    return pattern(q, k, v, kernel)

                return x, rotation, recording

            return before

        def note_tokens(layer):
            def after(module, inputs, output):
                seen.tokens[layer] = output

            return after

        blocks = network.aggregator.global_blocks
        handles = [network.aggregator.patch_embed.register_forward_hook(record_features)]
        handles += [blocks[layer].attn.register_forward_pre_hook(record_qk(layer)) for layer in self.layers]
        handles += [block.register_forward_hook(note_tokens(layer)) for layer, block in enumerate(blocks)]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def forward(self, batch: Batch, seen: Activations, network: VGGT) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            batch: Batch with depth and cameras.
            seen: Activations of the forward pass, from `record`.
            network: The trained network.

        Returns:
            Weighted scalars by name. Correspondence losses are 0 if the batch has one frame per sequence or no matches.
        """
        with torch.autocast(batch.images.device.type, enabled=False):
            grid = tuple(side // network.patch_size for side in batch.images.shape[-2:])
            causal, special = network.causal, network.aggregator.num_special_tokens
            matches = find_matches(batch, network.patch_size, self.tolerance)
            targets = Targets.of(matches, batch.images.shape[-2:], network.patch_size)
            features = network.aggregator.patch_features(seen.features).float().unflatten(0, (-1, batch.num_frames))
            assert features.shape[2] == grid[0] * grid[1]
            attention = [
                attention_error(seen.queries[layer].float(), seen.keys[layer].float(), targets, special, causal)
                for layer in self.layers
            ]
            known = GroundTruth()(batch, ("camera", "depth", "points"), None, None)
            places, deep, cameras = [], [], []
            for layer, norm in enumerate(self.norms):
                tokens = norm(seen.tokens[layer].float().unflatten(1, (batch.num_frames, -1)))
                patches = self.of_patches[layer](tokens[:, :, special:])
                if layer in self.layers or layer == len(self.norms) - 1:
                    places.append(position_error(patches[..., PLACE], matches, causal))
                deep.append(deep_error(patches, known, network.patch_size))
                read = Prediction(known.prediction.image_size, pose_enc=self.of_cameras[layer](tokens[:, :, 0]))
                cameras.append(CameraTerm(weight=1.0, error="l1")(read, known))
            return {
                "attention": self.attention * sum(attention),
                "place": self.place * sum(places),
                "features": self.features * feature_error(self.of_features(features), targets, self.temperature),
                "deep": self.deep * sum(deep) / len(deep),
                "deep_camera": self.camera * sum(cameras) / len(cameras),
            }


def _readout(dim: int, rest: Sequence[float]) -> nn.Linear:
    """Create a linear layer whose initial output is `rest` for all inputs."""
    layer = nn.Linear(dim, len(rest))
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor(rest))
    return layer
