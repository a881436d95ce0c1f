"""True correspondences as teachers of attention, for small networks that see too little to find them by themselves.

A network trained on hundreds of millions of images learns by itself which patches of two frames show the same place.
One that sees a hundred thousand does not, and its cameras stay where they began. Where depth and cameras are known, so
are the matches. They teach the first global blocks where to look and the encoder what to tell apart; the network
stays what it is, and nothing of this is left after training.

B sequences · S frames · P tokens of a frame · N heads · D head width · H×W pixels · h×w patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.data.view import Batch
from streamvggt.geometry.pointmap import unproject
from streamvggt.model.vggt import VGGT


@dataclass(frozen=True)
class Matches:
    """Where the centre of each patch is seen in one other frame.

    patch: number of the patch there; meaningless where not seen. (B, S, h·w) int64
    place: where in the image, x, y from its middle, in halves of its larger side; meaningless where not seen.
        (B, S, h·w, 2)
    seen: (B, S, h·w) bool
    frame: number of that other frame, of each frame. (S,) int64
    """

    patch: Tensor
    place: Tensor
    seen: Tensor
    frame: Tensor


@dataclass
class Seen:
    """What was watched in one forward pass.

    queries, keys: by global block. (B, N, S·P, D)
    answers: what their attention adds to the tokens, before it is scaled. (B, S·P, C)
    features: of the encoder. (B·S, h·w, C)
    """

    queries: dict[int, Tensor] = field(default_factory=dict)
    keys: dict[int, Tensor] = field(default_factory=dict)
    answers: dict[int, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


@dataclass(frozen=True)
class Correspondence:
    """What attention and patch features should say of the true matches.

    In each of the `layers` head 0 is taught to look from each patch at its match in the first frame, head 1 at the one
    in the frame before, among all keys that the frame sees. The first four channels of what the attention answers are
    taught to say where in those frames the matches are: so what was found is at hand for all that comes after, the
    camera tokens before all. The first `channels` of the encoder's features are taught to find the match among the
    patches of those frames (InfoNCE, arXiv 1807.03748).

    attention, place, features: weights.
    layers: global blocks.
    temperature: of the cosines of features.
    tolerance: a patch counts as seen if the depth there is what it should be, to this share.
    """

    attention: float = 0.1
    place: float = 0.5
    features: float = 0.1
    layers: Sequence[int] = (0, 1)
    channels: int = 64
    temperature: float = 0.07
    tolerance: float = 0.05

    @property
    def names(self) -> tuple[str, ...]:
        return ("attention", "place", "features")

    @contextmanager
    def watch(self, network: VGGT) -> Iterator[Seen]:
        """Note what passes through the network within the context."""
        seen = Seen()

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

        def note_answers(layer):
            def after(module, inputs, output):
                seen.answers[layer] = output

            return after

        blocks = network.aggregator.global_blocks
        handles = [network.aggregator.patch_embed.register_forward_hook(note_features)]
        handles += [blocks[layer].attn.register_forward_pre_hook(note_attention(layer)) for layer in self.layers]
        handles += [blocks[layer].attn.register_forward_hook(note_answers(layer)) for layer in self.layers]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def __call__(self, batch: Batch, seen: Seen, network: VGGT) -> dict[str, Tensor]:
        """The weighted scalars by name; zeros where the batch has one frame or nothing matches."""
        grid = tuple(side // network.patch_size for side in batch.images.shape[-2:])
        both = [
            find_matches(batch, network.patch_size, frame, self.tolerance)
            for frame in (torch.zeros(batch.num_frames, dtype=torch.int64), torch.arange(batch.num_frames) - 1)
        ]
        special = network.aggregator.num_special
        attention = [
            attention_error(
                seen.queries[layer][:, head], seen.keys[layer][:, head], matches, special, network.sees == "past"
            )
            for layer in self.layers
            for head, matches in enumerate(both)
        ]
        places = [
            place_error(seen.answers[layer][..., 2 * i : 2 * i + 2], matches, special, network.sees == "past")
            for layer in self.layers
            for i, matches in enumerate(both)
        ]
        features = seen.features[..., : self.channels].unflatten(0, (-1, batch.num_frames)).float()
        assert features.shape[2] == grid[0] * grid[1]
        described = [feature_error(features, matches, self.temperature) for matches in both]
        return {
            "attention": self.attention * sum(attention),
            "place": self.place * sum(places),
            "features": self.features * sum(described),
        }


@torch.no_grad()
def find_matches(batch: Batch, patch_size: int, frame: Tensor, tolerance: float = 0.05) -> Matches:
    """Where each patch is seen in another frame, by depth and cameras; things that moved are not seen.

    Args:
        frame: for each frame the one to look in; negative: none. (S,) int64
    """
    height, width = batch.depth.shape[-2:]
    rows, columns = (torch.arange(side // patch_size, device=batch.depth.device) for side in (height, width))
    y, x = (patch_size * rows + patch_size // 2)[:, None], (patch_size * columns + patch_size // 2)[None]
    # A patch's middle lies between pixels; the pixel right below stands for it.
    points = unproject(batch.depth, batch.cameras)[:, :, y, x].flatten(2, 3)  # (B, S, h·w, 3)
    known = batch.valid[:, :, y, x].flatten(2, 3)
    frame = frame.to(batch.depth.device)
    other = frame.clamp(min=0)
    R, t = batch.cam_from_world[:, other].split([3, 1], -1)
    there = points @ R.mT + t.mT  # in the other camera, (B, S, h·w, 3)
    pixel = there @ batch.intrinsics[:, other].mT
    depth = there[..., 2]
    exact = pixel[..., :2] / depth.clamp(min=1e-6)[..., None]
    middle = torch.tensor([width - 1, height - 1], device=exact.device) / 2
    place = 2 * (exact - middle) / max(height, width)
    u, v = exact.round().unbind(-1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (depth > 1e-6)
    u, v = (torch.where(inside, at, 0).long() for at in (u, v))
    index = (v * width + u).clamp(0, height * width - 1)
    measured = batch.depth[:, other].flatten(2).gather(2, index)
    measured_known = batch.valid[:, other].flatten(2).gather(2, index)
    agrees = (measured - depth).abs() < tolerance * depth
    is_other = (frame >= 0) & (frame != torch.arange(len(frame), device=frame.device))
    seen = known & inside & measured_known & agrees & is_other[:, None]
    return Matches((v // patch_size) * len(columns) + u // patch_size, place, seen, other)


def attention_error(q: Tensor, k: Tensor, matches: Matches, num_special: int, causal: bool) -> Tensor:
    """Mean cross entropy of one head's attention from patches to their matches, among all keys in sight.

    Args:
        q, k: finished, as attention multiplies them. (B, S·P, D)
        num_special: tokens of a frame before its patches.
        causal: frames see no later ones, so a later match does not count.
    """
    num_frames = len(matches.frame)
    with torch.autocast(q.device.type, enabled=False):
        q, k = (x.float().unflatten(1, (num_frames, -1)) for x in (q, k))  # (B, S, P, D)
        tokens = k.shape[2]
        seen = _in_sight(matches, causal)
        target = matches.frame[:, None] * tokens + num_special + matches.patch  # (B, S, h·w)
        scores = q[:, :, num_special:] @ k.flatten(1, 2).mT[:, None] * q.shape[-1] ** -0.5  # (B, S, h·w, S·P)
        if causal:
            future = torch.arange(num_frames, device=q.device)
            future = (future[None] > future[:, None]).repeat_interleave(tokens, 1)  # (S, S·P)
            scores = scores.masked_fill(future[:, None], -torch.inf)
        return _mean_cross_entropy(scores, target, seen)


def place_error(said: Tensor, matches: Matches, num_special: int, causal: bool) -> Tensor:
    """Mean distance of the places said from those of the matches, |Δx| + |Δy|.

    Args:
        said: (B, S·P, 2)
        num_special, causal: as of `attention_error`.
    """
    counts = _in_sight(matches, causal)
    said = said.float().unflatten(1, (len(matches.frame), -1))[:, :, num_special:]
    errors = (said - torch.where(counts[..., None], matches.place, 0)).abs().sum(-1)
    return torch.where(counts, errors, 0).sum() / counts.sum().clamp(min=1)


def feature_error(features: Tensor, matches: Matches, temperature: float) -> Tensor:
    """Mean cross entropy of finding a patch's match among the other frame's patches by cosine.

    Args:
        features: (B, S, h·w, C)
    """
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features, dim=-1)
        scores = unit @ unit[:, matches.frame].mT / temperature  # (B, S, h·w, h·w)
        return _mean_cross_entropy(scores, matches.patch, matches.seen)


def _in_sight(matches: Matches, causal: bool) -> Tensor:
    """Matches that are there and, if frames see no later ones, not later. (B, S, h·w) bool"""
    numbers = torch.arange(len(matches.frame), device=matches.frame.device)
    return matches.seen & (matches.frame <= numbers)[:, None] if causal else matches.seen


def _mean_cross_entropy(scores: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Over the entries that count; 0 with zero gradient if none does. (..., K), (...), (...) → ()"""
    errors = F.cross_entropy(scores.flatten(0, -2), target.flatten(), reduction="none").view(target.shape)
    return torch.where(counts, errors, 0).sum() / counts.sum().clamp(min=1)
