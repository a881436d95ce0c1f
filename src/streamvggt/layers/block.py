"""Transformer block of the encoder, the aggregator and the camera trunk."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from streamvggt.layers.attention import Attention, AttentionPattern, full_pattern
from streamvggt.layers.rope import RoPE2D


class Mlp(nn.Module):
    """Two linear layers with a GELU in between. (..., C) → (..., out_dim or C)"""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, out_dim or dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP. (..., C) → (..., out_dim or C)"""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Residual connection with a learned factor per channel of the branch (LayerScale, arXiv 2103.17239)."""

    def __init__(self, dim: int, init: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Return x + gamma·branch. (..., C), (..., C) → (..., C)"""
        return torch.addcmul(x, branch, self.gamma)


class Block(nn.Module):
    """Pre-norm transformer block: x + scale·attention(norm x), then x + scale·mlp(norm x)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        layer_scale: float = 0.01,
        qk_norm: bool = False,
        norm_eps: float = 1e-5,
        attention: str = "sdpa",
        activation_checkpointing: bool = False,
    ):
        """Build the block.

        Args:
            dim: Channels C.
            num_heads: Number of attention heads.
            mlp_ratio: Hidden width of the MLP relative to C.
            layer_scale: Initial LayerScale factor.
            qk_norm: Normalize queries and keys.
            norm_eps: Epsilon of the layer norms.
            attention: Attention kernel, see `get_kernel`.
            activation_checkpointing: Recompute activations in the backward pass to save memory.
        """
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qk_norm=qk_norm, attention=attention)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(
        self,
        x: Tensor,
        rotation: RoPE2D | None = None,
        pattern: AttentionPattern = full_pattern,
        mlp_hook: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Apply the block.

        Args:
            x: Tokens. (B, T, C)
            rotation: Rotary positions. None: no positions.
            pattern: Attention pattern.
            mlp_hook: Function of the MLP residual. (B, T, C)

        Returns:
            Tokens. (B, T, C)
        """
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(self._forward, x, rotation, pattern, mlp_hook, use_reentrant=False)
        return self._forward(x, rotation, pattern, mlp_hook)

    def _forward(
        self, x: Tensor, rotation: RoPE2D | None, pattern: AttentionPattern, mlp_hook: Callable[[Tensor], None] | None
    ) -> Tensor:
        x = self.ls1(x, self.attn(self.norm1(x), rotation, pattern))
        branch = self.mlp(self.norm2(x))
        if mlp_hook is not None:
            mlp_hook(branch * self.ls2.gamma)
        return self.ls2(x, branch)
