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
from torch.nn import functional as F

from streamvggt.data.view import Batch
from streamvggt.geometry.pointmap import unproject
from streamvggt.losses.camera import CameraTerm
from streamvggt.losses.target import Target
from streamvggt.losses.terms import masked_mean
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction
from streamvggt.training.supervision import GroundTruth

REST_POSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.1, 1.1)
"""Initial pose encoding of the deep supervision: identity pose and a typical field of view."""
PLACE, POINT, LOG_DEPTH = slice(0, 2), slice(2, 5), 5
REST_PATCH = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Initial output for patch tokens: position in the first frame, point in the first camera, log depth."""
NEAREST = 0.1
"""Lower bound in scene units of the depth that normalizes point errors."""


@dataclass(frozen=True)
class Matches:
    """Positions in frame j of the patch centers of frame i.

    Attributes:
        position: x, y relative to the image center, in units of half the larger side. Not meaningful where not visible.
            (B, S, S, h·w, 2), indexed by i, then j
        visible: Whether the position is in the image and not occluded. False for i = j. Bool (B, S, S, h·w)
    """

    position: Tensor
    visible: Tensor


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
    def watch(self, network: VGGT) -> Iterator[Activations]:
        """Record the activations that the losses use, in forward passes within the context."""
        seen = Activations()

        def note_features(module, inputs, output):
            seen.features = output

        def note_attention(layer):
            def before(module, inputs):
                x, rotation, pattern = inputs

                def noting(q, k, v, kernel):
                    seen.queries[layer], seen.keys[layer] = q, k
                    return pattern(q, k, v, kernel)

                return x, rotation, noting

            return before

        def note_tokens(layer):
            def after(module, inputs, output):
                seen.tokens[layer] = output

            return after

        blocks = network.aggregator.global_blocks
        handles = [network.aggregator.patch_embed.register_forward_hook(note_features)]
        handles += [blocks[layer].attn.register_forward_pre_hook(note_attention(layer)) for layer in self.layers]
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
            seen: Activations of the forward pass, from `watch`.
            network: The trained network.

        Returns:
            Weighted scalars by name. Correspondence losses are 0 if the batch has one frame per sequence or no matches.
        """
        with torch.autocast(batch.images.device.type, enabled=False):
            grid = tuple(side // network.patch_size for side in batch.images.shape[-2:])
            causal, special = network.causal, network.aggregator.num_special_tokens
            matches = find_matches(batch, network.patch_size, self.tolerance)
            targets = Targets.of(matches, batch.images.shape[-2:], network.patch_size)
            features = seen.features[..., : network.aggregator.embed_dim].float().unflatten(0, (-1, batch.num_frames))
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


@torch.no_grad()
def find_matches(batch: Batch, patch_size: int, tolerance: float = 0.05) -> Matches:
    """Find the position of each patch in all other frames from depth and cameras. Moved objects have no match.

    Args:
        batch: Batch with depth and cameras.
        patch_size: Side of a patch in pixels.
        tolerance: Maximum relative depth error of visible patches.
    """
    height, width = batch.depth.shape[-2:]
    rows, columns = _centers(batch.depth, patch_size)
    points = unproject(batch.depth, batch.cameras)[:, :, rows, columns].flatten(2, 3)  # (B, S, h·w, 3)
    known = batch.valid[:, :, rows, columns].flatten(2, 3)
    R, t = batch.cam_from_world[:, None].split([3, 1], -1)  # (B, 1, S, 3, 3)
    there = points[:, :, None] @ R.mT + t.mT  # (B, S, S, h·w, 3)
    pixel = there @ batch.intrinsics[:, None].mT
    depth = there[..., 2]
    exact = pixel[..., :2] / depth.clamp(min=1e-6)[..., None]
    x, y = exact.unbind(-1)
    place = 2 * torch.stack([x - (width - 1) / 2, y - (height - 1) / 2], -1) / max(height, width)
    u, v = exact.round().unbind(-1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (depth > 1e-6)
    u, v = (torch.where(inside, at, 0).long() for at in (u, v))
    index = (v * width + u).clamp(0, height * width - 1).transpose(1, 2).flatten(2)  # of frame j: (B, S, S·h·w)
    measured = batch.depth.flatten(2).gather(2, index).view(depth.transpose(1, 2).shape).transpose(1, 2)
    measured_known = batch.valid.flatten(2).gather(2, index).view(depth.transpose(1, 2).shape).transpose(1, 2)
    agrees = (measured - depth).abs() < tolerance * depth
    others = ~torch.eye(batch.num_frames, dtype=torch.bool, device=depth.device)
    seen = known[:, :, None] & inside & measured_known & agrees & others[..., None]
    return Matches(place, seen)


def _centers(images: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Return the rows (h, 1) and columns (1, w) of patch centers, rounded to the lower right pixel."""
    rows, columns = (
        torch.arange(patch_size // 2, side, patch_size, device=images.device) for side in images.shape[-2:]
    )
    return rows[:, None], columns[None]


@dataclass(frozen=True)
class Targets:
    """Four patches of frame j nearest to the match of each patch of frame i.

    Attributes:
        patches: Patch indices. int64 (B, S, S, h·w, 4)
        weights: Bilinear weights with sum 1. (B, S, S, h·w, 4)
        visible: See `Matches`. Bool (B, S, S, h·w)
    """

    patches: Tensor
    weights: Tensor
    visible: Tensor

    @classmethod
    def of(cls, matches: Matches, image_size: Sequence[int], patch_size: int) -> Targets:
        """Convert matches to patch targets for images of H×W pixels."""
        height, width = image_size
        h, w = height // patch_size, width // patch_size
        x, y = (matches.position * max(height, width) / 2).unbind(-1)
        x, y = ((at + (side - 1) / 2 + 0.5) / patch_size - 0.5 for at, side in ((x, width), (y, height)))
        x, y = x.clamp(0, w - 1), y.clamp(0, h - 1)  # in patches, from the center of the first
        left, top = x.floor().long(), y.floor().long()
        right, below = (left + 1).clamp(max=w - 1), (top + 1).clamp(max=h - 1)
        along, down = x - left, y - top
        patches = torch.stack([top * w + left, top * w + right, below * w + left, below * w + right], -1)
        weights = torch.stack([(1 - along) * (1 - down), along * (1 - down), (1 - along) * down, along * down], -1)
        return cls(patches, weights, matches.visible)

    def cross_entropy(self, scores: Tensor, counts: Tensor) -> Tensor:
        """Compute the mean cross entropy of scores against the bilinear targets.

        Args:
            scores: Scores of all patches of frame j for each patch of frame i. (B, S, S, h·w, h·w)
            counts: Mask of the entries to average. Bool (B, S, S, h·w)
        """
        errors = -(F.log_softmax(scores, -1).gather(-1, self.patches) * self.weights).sum(-1)
        return masked_mean(errors, counts)


def attention_error(q: Tensor, k: Tensor, targets: Targets, num_special_tokens: int, causal: bool) -> Tensor:
    """Compute the cross entropy of the attention of heads 0 and 1 against the matches. See `GeometryLosses`.

    Args:
        q, k: Normalized and rotated queries and keys. (B, N, S·P, D)
        targets: Matches.
        num_special_tokens: Tokens of a frame before its patches.
        causal: Skip matches in later frames, because causal attention excludes them.
    """
    num_frames = targets.visible.shape[1]
    q, k = (x[:, :2].unflatten(2, (num_frames, -1)) for x in (q, k))  # (B, 2, S, P, D)
    q = q[:, :, :, num_special_tokens:] * q.shape[-1] ** -0.5
    in_sight = _attendable(num_frames, causal, q.device)
    counts = targets.visible & in_sight[..., None]

    scores = torch.einsum("bipd,bjkd->bipjk", q[:, 0], k[:, 0])  # (B, S, h·w, S, P)
    scores = scores.masked_fill(~in_sight[:, None, :, None], -torch.inf)
    log_weights = scores.flatten(3).log_softmax(-1)[
        ..., num_special_tokens : k.shape[3]
    ]  # of patches of the first frame
    to_first = -(log_weights.gather(-1, targets.patches[:, :, 0]) * targets.weights[:, :, 0]).sum(-1)
    within = torch.einsum("bipd,bjkd->bijpk", q[:, 1], k[:, 1, :, num_special_tokens:])
    return masked_mean(to_first, counts[:, :, 0]) + targets.cross_entropy(within, counts)


def position_error(said: Tensor, matches: Matches, causal: bool) -> Tensor:
    """Compute the mean error |Δx| + |Δy| of predicted positions in the first frame.

    Args:
        said: Predicted positions in the units of `Matches.position`. (B, S, h·w, 2)
        matches: Ground-truth matches.
        causal: Skip matches in later frames.
    """
    counts = (matches.visible & _attendable(said.shape[1], causal, said.device)[..., None])[:, :, 0]
    errors = (said - torch.where(counts[..., None], matches.position[:, :, 0], 0)).abs().sum(-1)
    return masked_mean(errors, counts)


def feature_error(features: Tensor, targets: Targets, temperature: float) -> Tensor:
    """Compute the mean InfoNCE loss of matching patches between frames by cosine similarity.

    Args:
        features: Projected encoder features. (B, S, h·w, C)
        targets: Matches.
        temperature: Divisor of the cosine similarities.
    """
    unit = F.normalize(features, dim=-1)
    return targets.cross_entropy(torch.einsum("bipc,bjkc->bijpk", unit, unit) / temperature, targets.visible)


def deep_error(read: Tensor, known: Target, patch_size: int) -> Tensor:
    """Compute the mean error of points relative to their depth, plus the mean error of log depth.

    Args:
        read: Predictions from patch tokens. (B, S, h·w, 6)
        known: Target with depth, points and valid pixels.
        patch_size: Side of a patch in pixels.
    """
    y, x = _centers(known.prediction.depth[..., 0], patch_size)
    depth = known.prediction.depth[:, :, y, x, 0].flatten(2, 3)
    points = known.prediction.points[:, :, y, x].flatten(2, 3)
    valid = known.valid[:, :, y, x].flatten(2, 3)
    point_error = (read[..., POINT] - points).norm(dim=-1) / depth.clamp(min=NEAREST)
    depth_error = (read[..., LOG_DEPTH] - depth.clamp(min=1e-3).log()).abs()
    return masked_mean(torch.where(valid, point_error + depth_error, 0), valid)


def _attendable(num_frames: int, causal: bool, device: torch.device) -> Tensor:
    """Return whether frame i attends to frame j. Bool (S, S)"""
    everything = torch.ones(num_frames, num_frames, dtype=torch.bool, device=device)
    return everything.tril() if causal else everything
