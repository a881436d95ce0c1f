"""Transformer of the tracker: attention along time, and across tracks through virtual tracks.

Reference: CoTracker, arXiv 2307.07635.

B batch · N tracks · S frames · C channels.
"""

import torch
from torch import Tensor, nn

from streamvggt.layers.block import Mlp


class SelfBlock(nn.Module):
    """Self-attention and MLP. The residual branches start from the normalized input, as in the released network."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block. (B, T, C) → (B, T, C)"""
        x = self.norm1(x)
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Cross-attention and MLP. The residual branches start from the normalized queries, as in the released network."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.cross_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from x to the context. (B, T, C), (B, T', C) → (B, T, C)"""
        x, context = self.norm1(x), self.norm_context(context)
        x = x + self.cross_attn(x, context, context, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class TrackTransformer(nn.Module):
    """Predict the update of each track in each frame.

    Temporal blocks attend along each track. In each frame, learned virtual tracks attend to all tracks and to each
    other, then the tracks attend to the virtual tracks. The cost is linear in the number of tracks.

    Reference: CoTracker, arXiv 2307.07635.
    """

    def __init__(
        self,
        *,
        in_dim: int = 388,
        dim: int = 384,
        out_dim: int = 130,
        depth: int = 6,
        num_heads: int = 8,
        num_virtual_tracks: int = 64,
    ):
        super().__init__()
        self.num_virtual_tracks = num_virtual_tracks
        self.input_norm = nn.LayerNorm(in_dim)
        self.input_transform = nn.Linear(in_dim, dim)
        self.virual_tracks = nn.Parameter(
            torch.randn(1, num_virtual_tracks, 1, dim)
        )  # sic, in the released checkpoints
        self.time_blocks = nn.ModuleList(SelfBlock(dim, num_heads) for _ in range(depth))
        self.space_virtual2point_blocks = nn.ModuleList(CrossBlock(dim, num_heads) for _ in range(depth))
        self.space_virtual_blocks = nn.ModuleList(SelfBlock(dim, num_heads) for _ in range(depth))
        self.space_point2virtual_blocks = nn.ModuleList(CrossBlock(dim, num_heads) for _ in range(depth))
        self.output_norm = nn.LayerNorm(dim)
        self.flow_head = nn.Linear(dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the updates. (B, N, S, in_dim) → (B, N, S, out_dim)"""
        batch, _, num_frames, _ = x.shape
        points = self.input_transform(self.input_norm(x))
        x = torch.cat([points, self.virual_tracks.expand(batch, -1, num_frames, -1)], 1)  # (B, N + virtual, S, C)
        blocks = zip(
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        )
        for along_time, virtual_from_points, among_virtual, points_from_virtual in blocks:
            x = along_time(x.flatten(0, 1)).unflatten(0, (batch, -1))
            tracks = x.transpose(1, 2).flatten(0, 1)  # (B·S, N + virtual, C)
            real, virtual = tracks[:, : -self.num_virtual_tracks], tracks[:, -self.num_virtual_tracks :]
            virtual = among_virtual(virtual_from_points(virtual, real))
            real = points_from_virtual(real, virtual)
            x = torch.cat([real, virtual], 1).unflatten(0, (batch, num_frames)).transpose(1, 2)
        return self.flow_head(self.output_norm(x[:, : -self.num_virtual_tracks] + points))
