"""Attention patterns of a stream: new frames are added to a KV cache and attend to the cached tokens.

B streams · N heads · T tokens · P tokens of a frame · D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from streamvggt.layers.attention import Kernel
from streamvggt.layers.kv_cache import KVCache


class CachedPattern:
    """Attention pattern of a stream: each new frame is appended to a cache, then attends to the cached tokens."""

    def __init__(
        self,
        cache: KVCache,
        schedule: list[tuple[int, Collection[int]]],
        query_hook: Callable[[Tensor, KVCache], None] | None = None,
        is_joint: bool = False,
    ):
        """Create the pattern.

        Args:
            cache: KV cache of the layer, updated in place.
            schedule: Index of each new frame, and the frames to evict before it is appended.
            query_hook: Function of the queries (B, N, P, D) of each new frame and the cache.
            is_joint: Append all new frames before the first one attends. Evict no frames.
        """
        self.cache = cache
        self.schedule = schedule
        self.query_hook = query_hook
        self.is_joint = is_joint

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        tokens = q.shape[2] // len(self.schedule)
        outputs = []
        new = zip(self.schedule, q.split(tokens, 2), k.split(tokens, 2), v.split(tokens, 2), strict=True)
        if self.is_joint:
            return self._joint(q, list(new), kernel)
        for (frame, dropped), q_frame, k_frame, v_frame in new:
            self.cache.evict(dropped)
            self.cache.append(frame, k_frame, v_frame)
            if self.query_hook is not None:
                self.query_hook(q_frame, self.cache)
            outputs.append(kernel(q_frame, *self.cache.keys_values()))
        return torch.cat(outputs, 2) if len(outputs) > 1 else outputs[0]

    def _joint(self, q: Tensor, new: list, kernel: Kernel) -> Tensor:
        for (frame, _), _, k_frame, v_frame in new:
            self.cache.append(frame, k_frame, v_frame)
        for _, q_frame, _, _ in new if self.query_hook is not None else ():
            self.query_hook(q_frame, self.cache)
        return kernel(q, *self.cache.keys_values())


class StaticCachePattern:
    """Attention pattern of a full cache for captured steps (CUDA graphs).

    The tokens of the new frame are written to `index`, then the frame attends to all tokens. The result equals
    `CachedPattern` for one frame. No shape and no address changes, so that a step can be captured and replayed.
    """

    def __init__(self, cache: KVCache, index: Tensor):
        """Create the pattern.

        Args:
            cache: Cache with `is_static`: one free slot.
            index: Token offsets of the new frame in `cache.buffers()`, on the device. (P)
        """
        self.quantizer = cache.quantizer
        self.keys, self.values = cache.buffers()
        self.index = index

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        return kernel(q, self._extended(self.keys, k), self._extended(self.values, v))

    def _extended(self, planes: list[Tensor], new: Tensor) -> Tensor:
        for plane, part in zip(planes, self.quantizer.encode(new), strict=True):
            plane.index_copy_(2, self.index, part)
        return self.quantizer.decode(planes)
