"""Point tracker: iterative refinement of tracks from the first frame to all frames (VGGSfM, arXiv 2312.04563).

B batch · S frames · N tracks · C feature channels · h×w cells of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamvggt.layers.block import Mlp
from streamvggt.layers.sincos import sincos_embed
from streamvggt.model.tracking.correlation import bilinear_sample, correlate, feature_pyramid
from streamvggt.model.tracking.transformer import TrackTransformer

FLOW_SCALE = 518.0  # cells; divisor of the flow as an input
FLOW_PERIODS = 1000.0  # maximum frequency of the flow embedding, in radians per cell


class Tracker(nn.Module):
    """Track points on feature maps. All coordinates are in cells of the maps.

    Reference: VGGSfM, arXiv 2312.04563. CoTracker, arXiv 2307.07635.
    """

    def __init__(
        self,
        *,
        channels: int = 128,
        num_levels: int = 7,
        radius: int = 4,
        hidden_dim: int = 384,
        depth: int = 6,
        num_heads: int = 8,
        num_virtual_tracks: int = 64,
        num_iterations: int = 4,
    ):
        super().__init__()
        self.num_levels, self.radius, self.num_iterations = num_levels, radius, num_iterations
        in_dim = 3 * channels + 4  # flow as sines, flow twice, correlation, features
        self.fmap_norm = nn.LayerNorm(channels)
        self.corr_mlp = Mlp(num_levels * (2 * radius + 1) ** 2, hidden_dim, channels)
        self.query_ref_token = nn.Parameter(torch.randn(1, 2, in_dim))
        self.updateformer = TrackTransformer(
            in_dim=in_dim,
            dim=hidden_dim,
            out_dim=2 + channels,
            depth=depth,
            num_heads=num_heads,
            num_virtual_tracks=num_virtual_tracks,
        )
        self.ffeat_norm = nn.GroupNorm(1, channels)
        self.ffeat_updater = nn.Sequential(nn.Linear(channels, channels), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(channels, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(channels, 1))

    def normalize(self, maps: Tensor) -> Tensor:
        """Normalize feature maps for `forward`. (B, S, C, h, w) → same"""
        return self.fmap_norm(maps.to(self.query_ref_token.dtype).movedim(2, -1)).movedim(-1, 2)

    def forward(self, maps: Tensor, queries: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Track points from the first frame to all frames.

        Args:
            maps: Normalized feature maps. Frame 0 is the query frame. (B, S, C, h, w)
            queries: Query points (x, y) in cells. (B, N, 2)

        Returns:
            coords: Positions (x, y) in cells after each iteration. (B, S, N, 2) each
            visibility, confidence: In [0, 1]. (B, S, N)
        """
        num_frames, channels = maps.shape[1:3]
        pyramid = feature_pyramid(maps, self.num_levels)
        queries = queries.to(maps.dtype)
        coords = queries[:, None].expand(-1, num_frames, -1, -1)  # (B, S, N, 2)
        features = bilinear_sample(maps[:, 0], queries, padding="border")[:, None].expand(-1, num_frames, -1, -1)
        place = self._query_pos_embed(maps, queries)  # (B, 1, N, in_dim)
        first, later = self.query_ref_token.split(1, 1)
        reference = torch.cat([first, later.expand(-1, num_frames - 1, -1)], 1)[:, :, None]  # (1, S, 1, in_dim)

        stages = []
        for _ in range(self.num_iterations):
            coords = coords.detach()
            flow = coords - coords[:, :1]
            correlation = self.corr_mlp(correlate(pyramid, features, coords, self.radius, self.num_levels))
            scaled = flow / FLOW_SCALE
            x = torch.cat([flow_embedding(flow, channels // 2), scaled, scaled, correlation, features], -1)
            x = x + place + reference
            delta = self.updateformer(x.transpose(1, 2)).transpose(1, 2)  # (B, S, N, 2 + C)
            features = features + self._feature_update(delta[..., 2:])
            coords = coords + delta[..., :2]
            coords = torch.cat([queries[:, None], coords[:, 1:]], 1)
            stages.append(coords)
        visibility, confidence = (
            predictor(features).squeeze(-1).sigmoid() for predictor in (self.vis_predictor, self.conf_predictor)
        )
        return stages, visibility, confidence

    def _feature_update(self, delta: Tensor) -> Tensor:
        return self.ffeat_updater(self.ffeat_norm(delta.flatten(0, -2))).unflatten(0, delta.shape[:-1])

    def _query_pos_embed(self, maps: Tensor, queries: Tensor) -> Tensor:
        """Embed the positions of the query points. (B, 1, N, in_dim)"""
        channels = self.query_ref_token.shape[-1]
        height, width = maps.shape[-2:]
        x = torch.arange(width, device=maps.device)
        y = torch.arange(height, device=maps.device)
        across = sincos_embed(x, channels // 2, base=10000.0).T[:, None, :].expand(-1, height, -1)
        down = sincos_embed(y, channels // 2, base=10000.0).T[:, :, None].expand(-1, -1, width)
        embedding = torch.cat([across, down]).to(maps.dtype)  # (in_dim, h, w)
        return bilinear_sample(embedding.expand(len(queries), -1, -1, -1), queries, padding="border")[:, None]


def flow_embedding(flow: Tensor, channels: int) -> Tensor:
    """Embed the flow: sines on even and cosines on odd channels, x then y. (..., 2) → (..., 2·channels)"""
    frequency = torch.arange(0, channels, 2, dtype=flow.dtype, device=flow.device) * (FLOW_PERIODS / channels)
    angle = flow[..., None] * frequency  # (..., 2, channels/2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-3)
