"""Softmax attention: the kernels that compute it, who sees whom, and the layer around it.

Three things that are easily tangled are kept apart. A *kernel* computes softmax(q·kᵀ/√D)·v. A *pattern* decides which
keys each query meets (all, the frames up to its own, what a memory holds). The layer projects, normalises and rotates.

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
    """PyTorch's own attention, on any device and dtype. (B, N, T, D), keys and values of any length."""
    return F.scaled_dot_product_attention(q, k, v)


def flash_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The flash-attn package's attention. (B, N, T, D), keys and values of any length.

    Raises:
        ValueError: the tensors are not half precision on CUDA, all that flash-attn serves.
    """
    check_kernel("flash", q.device, q.dtype)
    from flash_attn import flash_attn_func

    return flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def math_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The formula as it stands, scores kept: few tokens in bfloat16 on a CPU train fastest so (benchmarks/training.md).

    (B, N, T, D), keys and values of any length.
    """
    return torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, -1) @ v


class _WithoutCudnn:
    """Keeps cuDNN's attention out of PyTorch's choice while any thread is within the context.

    On H100 and H200 PyTorch 2.9 and later choose cuDNN first. cuDNN builds a plan for every new shape, 55 to 70 ms each
    (measured elsewhere, on one SM100 card), and keeps it: with a memory that grows that is one per frame and layer
    kind. Flash attention, which PyTorch chooses then, has no plans. The choice is one for the process.
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
"""Context for attention whose number of keys changes from call to call; it may be entered again within."""

KERNELS: dict[str, Kernel] = {"sdpa": sdpa_kernel, "flash": flash_kernel, "math": math_kernel}


def get_kernel(name: str) -> Kernel:
    """The kernel called `name`.

    Raises:
        ValueError: there is none of that name.
        ImportError: it needs a package that is not installed.
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
    """Raises ValueError where the kernel called `name` cannot serve tensors of this device and dtype."""
    if name == "flash" and (device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16)):
        raise ValueError(
            f"attention='flash' serves float16 and bfloat16 on CUDA, not {dtype} on {device.type}: "
            "load the model with dtype=torch.bfloat16 and device='cuda', or with attention='sdpa'"
        )


def full_pattern(q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
    """Every query meets every key."""
    return kernel(q, k, v)


class RetainedTokens(NamedTuple):
    """The first tokens of a frame, where the others are not seen."""

    frame: int
    num_tokens: int


class CausalPattern:
    """Every frame meets itself and earlier frames: all of them, or those a policy would have kept.

    One kernel call per frame over the frames it sees, so no (S·P)² mask exists and nothing invisible is computed:

        keys    f0 f1 f2 f3
        f0      ■                call 1
        f1      ■  ■             call 2
        f2      ■  ·  ■          call 3, attended_frames[2] = [0, 2]
        f3      ■  ·  ■  ■       call 4
    """

    def __init__(
        self, num_frames: int, attended_frames: Sequence[Sequence[int | RetainedTokens]] | None = None, joint: int = 0
    ):
        """
        Args:
            num_frames: S of the sequence.
            attended_frames: for each frame the frames, or remnants of frames, it sees, its own among them; None: all up
                to its own. A frame of fewer tokens than a remnant (the camera trunk's have one) is seen whole.
            joint: number of first frames that all attend to each other, whatever `attended_frames` is.
        """
        self.num_frames = num_frames
        self.joint = joint
        self.attended_frames = attended_frames

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        if self.num_frames == 1:
            return kernel(q, k, v)
        tokens = q.shape[2] // self.num_frames
        seen = []
        for frame, q_frame in enumerate(q.split(tokens, 2)):
            if self.attended_frames is None or frame < self.joint:
                end = max(frame + 1, self.joint) * tokens
                k_seen, v_seen = k[:, :, :end], v[:, :, :end]
            else:
                k_seen, v_seen = (
                    torch.cat([frame_slice(x, what, tokens) for what in self.attended_frames[frame]], 2) for x in (k, v)
                )
            seen.append(kernel(q_frame, k_seen, v_seen))
        return torch.cat(seen, 2)


def frame_slice(x: Tensor, frame: int | RetainedTokens, tokens_per_frame: int) -> Tensor:
    """The keys or values of a frame of a sequence, or of its remnant. (B, N, S·P, D) → (B, N, P or fewer, D)"""
    frame, size = frame if isinstance(frame, RetainedTokens) else (frame, tokens_per_frame)
    return x[:, :, frame * tokens_per_frame : frame * tokens_per_frame + min(size, tokens_per_frame)]


class PerStreamPattern:
    """Streams that share nothing but the weights: each entry of the batch has a pattern of its own."""

    def __init__(self, patterns: Sequence[AttentionPattern]):
        self.patterns = patterns

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        streams = zip(self.patterns, q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([pattern(*stream, kernel) for pattern, *stream in streams])


class Attention(nn.Module):
    """Multi-head self-attention, with normalised queries and keys if asked.

    With qk-norm and a rotation the keys handed to the pattern are finished: nothing has to be redone to use them again
    for a later frame, which is what lets a memory keep them.
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
        """(B, T, C) → (B, T, C)"""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3).unbind(2)  # (B, N, T, D)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        # Under autocast the normalisations answer in float32; the kernel and the memory want one dtype.
        out = pattern(q.to(v.dtype), k.to(v.dtype), v, self.kernel)
        return self.proj(out.transpose(1, 2).flatten(2))
