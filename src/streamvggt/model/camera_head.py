"""Camera tokens to cameras, by repeated refinement (VGGT, arXiv 2503.11651, §3.3).

B batch · S frames · C channels of the head (twice the aggregator's).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamvggt.layers.attention import AttentionPattern
from streamvggt.layers.block import Block, Mlp

POSE_ENC_DIM = 9  # translation, quaternion, two fields of view


class CameraHead(nn.Module):
    """Refines the pose encodings of all frames several times; a trunk lets the frames' camera tokens see each other."""

    def __init__(
        self,
        dim: int = 2048,
        *,
        trunk_depth: int = 4,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_iterations: int = 4,
        layer_scale: float = 0.01,
        attention: str = "sdpa",
    ):
        super().__init__()
        self.num_iterations = num_iterations
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale, attention=attention)
            for _ in range(trunk_depth)
        )
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_ENC_DIM))
        self.embed_pose = nn.Linear(POSE_ENC_DIM, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.adaln_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.pose_branch = Mlp(dim, dim // 2, POSE_ENC_DIM)
        # A fresh network says "the world's own camera, one radian wide", so that its cameras are cameras.
        with torch.no_grad():
            self.pose_branch.fc2.weight.mul_(0.1)
            self.pose_branch.fc2.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 1, 1]) / num_iterations)

    def forward(self, camera_tokens: Tensor, patterns: Sequence[Sequence[AttentionPattern]]) -> list[Tensor]:
        """The encodings after each refinement, the last one the best.

        Args:
            camera_tokens: the aggregator's, one per frame. (B, S, C)
            patterns: for each refinement (one entry serves all) and trunk block, whom a frame sees.

        Returns:
            For each refinement: translation, quaternion, fields of view ≥ 0; at least float32. (B, S, 9)
        """
        # Half precision of autocast would drop what tells the frames' tokens apart (VGGT runs this head so, too).
        with torch.autocast(camera_tokens.device.type, enabled=False):
            return self._refinements(camera_tokens.to(self.token_norm.weight.dtype), patterns)

    def _refinements(self, camera_tokens: Tensor, patterns: Sequence[Sequence[AttentionPattern]]) -> list[Tensor]:
        """`forward` of tokens in the weights' own precision."""
        tokens = self.token_norm(camera_tokens)
        # The sum of refinements stays in float32 whatever the weights are: angles and positions need its digits.
        exact = torch.promote_types(tokens.dtype, torch.float32)
        stages: list[Tensor] = []
        raw = None
        for iteration in range(self.num_iterations):
            pred_pose_enc = self.empty_pose_tokens.expand(*tokens.shape[:2], -1) if raw is None else raw.detach()
            delta = self._refine(tokens, pred_pose_enc, patterns[iteration % len(patterns)]).to(exact)
            raw = delta if raw is None else raw.detach() + delta  # each refinement answers for itself alone
            stages.append(torch.cat([raw[..., :7], F.relu(raw[..., 7:])], -1))
        return stages

    def _refine(self, tokens: Tensor, pred_pose_enc: Tensor, patterns: Sequence[AttentionPattern]) -> Tensor:
        """What to add to the encodings said so far. (B, S, C), (B, S, 9) → (B, S, 9)"""
        embedded = self.embed_pose(pred_pose_enc.to(self.embed_pose.weight.dtype))
        shift, scale, gate = self.poseLN_modulation(embedded).chunk(3, -1)
        x = gate * (self.adaln_norm(tokens) * (1 + scale) + shift) + tokens
        for block, pattern in zip(self.trunk, patterns, strict=True):
            x = block(x, None, pattern)
        return self.pose_branch(self.trunk_norm(x))
