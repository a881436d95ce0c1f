"""Camera head: camera tokens to pose encodings by iterative refinement (VGGT, arXiv 2503.11651, Sec. 3.3).

B batch · S frames · C channels of the head (twice the aggregator's).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamvggt.layers.attention import AttentionPattern
from streamvggt.layers.block import Block, Mlp
from streamvggt.model.heads.context import HeadContext

POSE_ENC_DIM = 9  # translation, quaternion, two fields of view


class CameraHead(nn.Module):
    """Refine the pose encodings of all frames iteratively. The trunk attends across the camera tokens of the frames.

    Reference: VGGT, arXiv 2503.11651, Sec. 3.3.
    """

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
        # Initialize to the identity pose and a field of view of 1 rad, so that untrained outputs are valid cameras.
        with torch.no_grad():
            self.pose_branch.fc2.weight.mul_(0.1)
            self.pose_branch.fc2.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 1, 1]) / num_iterations)

    @classmethod
    def from_config(cls, config: Any, *, layer_scale: float, attention: str) -> CameraHead:
        """Build the head of a `VGGTConfig`. Arguments as in `streamvggt.model.heads.Head`."""
        return cls(
            2 * config.embed_dim,
            trunk_depth=config.camera_trunk_depth,
            num_heads=config.camera_num_heads,
            mlp_ratio=config.mlp_ratio,
            num_iterations=config.camera_iterations,
            layer_scale=layer_scale,
            attention=attention,
        )

    def predict(self, tokens: Sequence[Tensor], context: HeadContext) -> dict[str, Tensor | tuple[Tensor, ...]]:
        """Predict the pose encodings from the frame tokens of the last layer, (B, S, P, C)."""
        camera_tokens = tokens[0][:, :, 0]
        past, num_frames = context.past, camera_tokens.shape[1]
        if past.camera_cache == "per_iteration":
            stages = self(camera_tokens, past.camera_patterns(num_frames))
        else:  # frame by frame with one cache for all iterations, as the reference implementation
            patterns = past.shared_camera_patterns(num_frames)
            frames = [self(token, [each]) for token, each in zip(camera_tokens.split(1, 1), patterns, strict=True)]
            stages = [torch.cat(stage, 1) for stage in zip(*frames, strict=True)]
        return {"pose_enc": stages[-1], "pose_enc_list": tuple(stages)}

    def forward(self, camera_tokens: Tensor, patterns: Sequence[Sequence[AttentionPattern]]) -> list[Tensor]:
        """Predict the pose encodings.

        Args:
            camera_tokens: Camera tokens of the aggregator, one per frame. (B, S, C)
            patterns: Attention pattern per iteration and trunk block. One entry applies to all iterations.

        Returns:
            Pose encoding after each iteration: translation, quaternion (x, y, z, w), fields of view ≥ 0 in radians, at
            least float32. (B, S, 9) each
        """
        # Half precision removes the small differences between the tokens of frames. VGGT disables autocast here, too.
        with torch.autocast(camera_tokens.device.type, enabled=False):
            return self._refinements(camera_tokens.to(self.token_norm.weight.dtype), patterns)

    def _refinements(self, camera_tokens: Tensor, patterns: Sequence[Sequence[AttentionPattern]]) -> list[Tensor]:
        """Run the iterations in the precision of the weights."""
        tokens = self.token_norm(camera_tokens)
        normalized = self.adaln_norm(tokens)
        if torch.is_grad_enabled() and len(patterns) == 1:
            raw = self._iterate_as_batch(tokens, normalized, patterns[0])
        else:
            raw = self._iterate(tokens, normalized, patterns, self.num_iterations)
        return [torch.cat([encoding[..., :7], F.relu(encoding[..., 7:])], -1) for encoding in raw]

    def _iterate(
        self, tokens: Tensor, normalized: Tensor, patterns: Sequence[Sequence[AttentionPattern]], count: int
    ) -> list[Tensor]:
        """Run iterations one after the other. Returns the pose encodings before the activation, (B, S, 9) each."""
        raw: list[Tensor] = []
        for iteration in range(count):
            before = raw[-1].detach() if raw else self._initial_encoding(tokens)  # no gradient between iterations
            delta = self._refine(tokens, normalized, before, patterns[iteration % len(patterns)])
            raw.append(before + delta if raw else delta)
        return raw

    def _iterate_as_batch(
        self, tokens: Tensor, normalized: Tensor, pattern: Sequence[AttentionPattern]
    ) -> list[Tensor]:
        """Run the iterations with gradients, as one batch. Results as from `_iterate`.

        No gradient flows between iterations. Once their inputs are known, they are independent of each other. As a
        batch, they read each weight once and compute its gradient once, which takes less time than the additional
        iterations without gradient.
        """
        count = self.num_iterations
        with torch.no_grad():
            before = self._iterate(tokens, normalized, [pattern], count - 1)
        inputs = torch.cat([self._initial_encoding(tokens), *before])
        deltas = self._refine(tokens.repeat(count, 1, 1), normalized.repeat(count, 1, 1), inputs, pattern).chunk(count)
        return [deltas[0], *(encoding + delta for encoding, delta in zip(before, deltas[1:], strict=True))]

    def _initial_encoding(self, tokens: Tensor) -> Tensor:
        """Return the learned input of the first iteration. (B, S, C) → (B, S, 9)"""
        return self.empty_pose_tokens.expand(*tokens.shape[:2], -1)

    def _refine(
        self, tokens: Tensor, normalized: Tensor, pred_pose_enc: Tensor, patterns: Sequence[AttentionPattern]
    ) -> Tensor:
        """Predict the update of the pose encodings. (B, S, C), (B, S, C), (B, S, 9) → (B, S, 9), at least float32

        Poses need more precision than half precision provides.
        """
        embedded = self.embed_pose(pred_pose_enc.to(self.embed_pose.weight.dtype))
        shift, scale, gate = self.poseLN_modulation(embedded).chunk(3, -1)
        modulated = torch.addcmul(shift, normalized, 1 + scale)
        x = torch.addcmul(tokens, gate, modulated)
        for block, pattern in zip(self.trunk, patterns, strict=True):
            x = block(x, None, pattern)
        delta = self.pose_branch(self.trunk_norm(x))
        return delta.to(torch.promote_types(delta.dtype, torch.float32))
