"""Matches of patches between frames from ground-truth depth and cameras.

B sequences · S frames · P tokens per frame · N heads · D head width · C channels · H×W pixels · h×w patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.data.view import Batch
from streamvggt.geometry.pointmap import unproject
from streamvggt.losses.terms import masked_mean


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


@torch.no_grad()
def find_matches(batch: Batch, patch_size: int, tolerance: float = 0.05) -> Matches:
    """Find the position of each patch in all other frames from depth and cameras. Moved objects have no match.

    Args:
        batch: Batch with depth and cameras.
        patch_size: Side of a patch in pixels.
        tolerance: Maximum relative depth error of visible patches.
    """
    height, width = batch.depth.shape[-2:]
    rows, columns = patch_centers(batch.depth, patch_size)
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


def patch_centers(images: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
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
