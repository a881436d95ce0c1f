"""Softmax attention: kernels, attention patterns and the attention layer.

A kernel computes softmax(q·kᵀ/√D)·v. A pattern selects the keys that each query attends to: all keys, the frames up to
its own, or the content of a KV cache. The layer projects, normalizes and rotates.

B batch · T tokens · S frames · P tokens of a frame · C channels · N heads · D head width.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamvggt.layers.rope import RoPE2D

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
AttentionPattern = Callable[[Tensor, Tensor, Tensor, Kernel], Tensor]


def sdpa_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention with PyTorch, on any device and dtype.

    Args:
        q: Queries. (B, N, T, D)
        k, v: Keys and values of any length T'. (B, N, T', D)

    Returns:
        Attention output. (B, N, T, D)
    """
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and multiplies_bfloat16() and not q.requires_grad:
        return math_kernel(q, k, v)  # 1.2 to 1.6 times as fast as PyTorch's kernel (benchmarks/attention.md)
    return F.scaled_dot_product_attention(q, k, v)


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products (AVX512-BF16 or AMX). Other CPUs emulate them, slower."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def flash_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention with the flash-attn package. Arguments as in `sdpa_kernel`.

    Raises:
        ValueError: If the tensors are not half precision on CUDA.

    Reference: FlashAttention-2, arXiv 2307.08691.
    """
    check_kernel("flash", q.device, q.dtype)
    from flash_attn import flash_attn_func

    return flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


MAX_SCORES = 1 << 21
"""Maximum number of scores that `math_kernel` computes at once on CPU, so that they stay in the cache."""


def math_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention with explicit scores. Arguments as in `sdpa_kernel`.

    This is the fastest kernel in bfloat16 on CPU (benchmarks/attention.md), also for training with few tokens
    (benchmarks/training.md).
    """
    batch, heads, num_queries, _ = q.shape
    rows = max(MAX_SCORES // k.shape[2], 1)
    if q.device.type != "cpu" or batch * heads * num_queries <= rows:
        return _explicit_attention(q, k, v)
    per_tile = max(rows // num_queries, 1)  # heads
    tiles = [
        torch.cat([_explicit_attention(part, keys, values) for part in queries.split(rows, 1)], 1)
        for queries, keys, values in zip(*(x.flatten(0, 1).split(per_tile) for x in (q, k, v)), strict=True)
    ]
    return torch.cat(tiles).unflatten(0, (batch, heads))


def _explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax(q·kᵀ/√D)·v. (..., T, D), (..., T', D), (..., T', D) → (..., T, D)"""
    return torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, -1) @ v


class _WithoutCudnn:
    """Disable cuDNN attention in this process while any thread is within the context.

    On H100 and H200, PyTorch 2.9 and later prefer cuDNN attention. cuDNN builds and caches a plan for each new shape,
    in 55 to 70 ms (measured externally on one SM100 card). A growing KV cache needs a new plan per frame and kind of
    layer. PyTorch's flash attention has no plans.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._number = 0
        self._before = True

    def __enter__(self) -> None:
        with self._lock:
            if not self._number:
                self._before = torch.backends.cuda.cudnn_sdp_enabled()
                torch.backends.cuda.enable_cudnn_sdp(False)
            self._number += 1

    def __exit__(self, *exception) -> None:
        with self._lock:
            self._number -= 1
            if not self._number:
                torch.backends.cuda.enable_cudnn_sdp(self._before)


without_cudnn = _WithoutCudnn()
"""Reentrant context for attention with a varying number of keys."""

KERNELS: dict[str, Kernel] = {"sdpa": sdpa_kernel, "flash": flash_kernel, "math": math_kernel}


def get_kernel(name: str) -> Kernel:
    """Return an attention kernel.

    Args:
        name: "sdpa", "flash" or "math".

    Raises:
        ValueError: If the name is unknown.
        ImportError: If the package of the kernel is not installed.
    """
    if name not in KERNELS:
        raise ValueError(f"attention={name!r} is unknown; choose one of {', '.join(KERNELS)}")
    if name == "flash" and importlib.util.find_spec("flash_attn") is None:
        raise ImportError(
            "attention='flash' needs the flash-attn package, which is not installed: "
            "`pip install flash-attn` (CUDA only), or use attention='sdpa'"
        )
    return KERNELS[name]


def check_kernel(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Check that a kernel supports a device and dtype.

    Raises:
        ValueError: If the kernel does not support the device or dtype.
    """
    if name == "flash" and (device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16)):
        raise ValueError(
            f"attention='flash' supports float16 and bfloat16 on CUDA, not {dtype} on {device.type}: "
            "load the model with dtype=torch.bfloat16 and device='cuda', or with attention='sdpa'"
        )


def full_pattern(q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
    """Let every query attend to every key."""
    return kernel(q, k, v)


class RetainedTokens(NamedTuple):
    """First tokens of a frame whose other tokens are evicted.

    Attributes:
        frame: Frame index.
        num_tokens: Number of retained tokens.
    """

    frame: int
    num_tokens: int


class CausalPattern:
    """Causal pattern: each frame attends to itself and earlier frames, all of them or those that a policy keeps.

    There is one kernel call per frame over its attended frames, without an (S·P)² mask and without masked products:

        keys    f0 f1 f2 f3
        f0      ■                call 1
        f1      ■  ■             call 2
        f2      ■  ·  ■          call 3, attended_frames[2] = [0, 2]
        f3      ■  ·  ■  ■       call 4
    """

    def __init__(
        self, num_frames: int, attended_frames: Sequence[Sequence[int | RetainedTokens]] | None = None, joint: int = 0
    ):
        """Create the pattern.

        Args:
            num_frames: Number of frames S of the sequence.
            attended_frames: Frames or retained tokens that each frame attends to, including itself. None: all frames
                up to itself. If a frame has fewer tokens than `RetainedTokens.num_tokens` (camera trunk: one token),
                all of its tokens are attended to.
            joint: Number of first frames that attend to each other, independent of `attended_frames`.
        """
        self.num_frames = num_frames
        self.joint = joint
        self.attended_frames = attended_frames

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        if self.num_frames == 1:
            return kernel(q, k, v)
        tokens = q.shape[2] // self.num_frames
        attended = zip(q.split(tokens, 2), self._attended(k, tokens), self._attended(v, tokens), strict=True)
        return torch.cat([kernel(*frame) for frame in attended], 2)

    def _attended(self, x: Tensor, tokens: int) -> Sequence[Tensor]:
        """Select the keys or values that each frame attends to. (B, N, S·P, D) → S × (B, N, any, D)"""
        if self.attended_frames is None:
            ends = [max(frame + 1, self.joint) * tokens for frame in range(self.num_frames)]
            return Prefixes.apply(x, ends)
        return [
            x[:, :, : self.joint * tokens]
            if frame < self.joint
            else torch.cat([frame_slice(x, what, tokens) for what in self.attended_frames[frame]], 2)
            for frame in range(self.num_frames)
        ]


class Prefixes(torch.autograd.Function):
    """First tokens of a sequence, for several lengths in ascending order. The last one is the full length.

    The gradients are added in place. Slices allocate and add a zero-filled gradient of full length per slice.
    """

    @staticmethod
    def forward(ctx, x: Tensor, ends: Sequence[int]) -> tuple[Tensor, ...]:
        """Return views. (B, N, T, D) → (B, N, end, D) per end"""
        return tuple(x[:, :, :end] for end in ends)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        """Add the gradients of all prefixes. (B, N, end, D) each → (B, N, T, D)"""
        *shorter, longest = gradients
        total = longest.clone()
        for gradient in shorter:
            total[:, :, : gradient.shape[2]] += gradient
        return total, None


def frame_slice(x: Tensor, frame: int | RetainedTokens, tokens_per_frame: int) -> Tensor:
    """Slice the keys or values of a frame or of its retained tokens. (B, N, S·P, D) → (B, N, P or fewer, D)"""
    frame, size = frame if isinstance(frame, RetainedTokens) else (frame, tokens_per_frame)
    return x[:, :, frame * tokens_per_frame : frame * tokens_per_frame + min(size, tokens_per_frame)]


class PerStreamPattern:
    """Apply a separate pattern to each batch entry, for independent streams."""

    def __init__(self, patterns: Sequence[AttentionPattern]):
        self.patterns = patterns

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        streams = zip(self.patterns, q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([pattern(*stream, kernel) for pattern, *stream in streams])


class Attention(nn.Module):
    """Multi-head self-attention with optional normalization of queries and keys.

    Keys are normalized and rotated before the pattern, so that a KV cache can reuse them for later frames.
    """

    def __init__(self, dim: int, num_heads: int, *, qk_norm: bool = False, attention: str = "sdpa"):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {dim} channels")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)
        self.kernel = get_kernel(attention)

    def forward(self, x: Tensor, rotation: RoPE2D | None = None, pattern: AttentionPattern = full_pattern) -> Tensor:
        """Compute self-attention.

        Args:
            x: Tokens. (B, T, C)
            rotation: Rotary positions of queries and keys. None: no positions.
            pattern: Attention pattern.

        Returns:
            Tokens. (B, T, C)
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3).unbind(2)  # (B, N, T, D)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        # Under autocast the normalizations return float32, but kernel and cache need one dtype.
        out = pattern(q.to(v.dtype), k.to(v.dtype), v, self.kernel)
        return self.proj(out.transpose(1, 2).flatten(2))
