"""KV caches of one stream: global layers and camera trunk."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from streamvggt.choices import CameraCacheMode, KVCacheDtype
from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.eviction import EvictionPolicy


class MemoryCaches:
    """KV caches of all layers that attend across frames.

    Attributes:
        layers: Caches of the global layers.
        camera: Caches of the camera trunk per iteration and block. One iteration if the cache is shared.
    """

    def __init__(
        self,
        policy: EvictionPolicy,
        *,
        num_layers: int,
        camera_blocks: int,
        camera_iterations: int,
        camera_cache: CameraCacheMode,
        dtype: KVCacheDtype,
        num_special_tokens: int,
    ):
        """Create empty caches. Arguments as for `KVCacheMemory`."""
        self._is_token_level = policy.is_token_level
        slots_per_frame = 1 if camera_cache == "per_iteration" else camera_iterations
        self.layers = [
            KVCache(
                policy.capacity,
                num_retained_frames=policy.retained,
                tokens_per_retained=num_special_tokens,
                dtype=dtype,
                num_special_tokens=num_special_tokens,
                retains=policy.stores,
            )
            for _ in range(num_layers)
        ]
        self.camera = [
            [
                KVCache(
                    None if policy.capacity is None else policy.capacity * slots_per_frame,
                    num_retained_frames=policy.retained * slots_per_frame,
                    dtype=dtype,
                    retains=policy.stores,
                )
                for _ in range(camera_blocks)
            ]
            for _ in range(camera_iterations // slots_per_frame)
        ]

    def __iter__(self) -> Iterator[KVCache]:
        """Iterate over all caches."""
        yield from self.layers
        yield from self._of_camera()

    def evict(self, frames: Collection[int]) -> None:
        """Evict frames. The global layers of token-level policies evict tokens instead."""
        for cache in self._of_camera() if self._is_token_level else self:
            cache.evict(frames)

    def clear(self) -> None:
        """Evict all frames."""
        for cache in self:
            cache.clear()

    def begin(self) -> None:
        """Start to save overwritten tokens for `rollback`, until `commit`."""
        for cache in self:
            cache.begin()

    def commit(self) -> None:
        """Drop the saved tokens."""
        for cache in self:
            cache.commit()

    def rollback(self) -> None:
        """Restore the bit-exact content at `begin`."""
        for cache in self:
            cache.rollback()

    @property
    def num_bytes(self) -> int:
        """Size of keys and values in bytes, including free slots."""
        return sum(cache.num_bytes for cache in self)

    def state_dict(self) -> dict[str, list]:
        """Return {"layers": state per layer, "camera": state per iteration and block}. See `KVCache.state_dict`."""
        return {
            "layers": [cache.state_dict() for cache in self.layers],
            "camera": [[cache.state_dict() for cache in blocks] for blocks in self.camera],
        }

    def load_state_dict(self, state: dict[str, list], device: torch.device) -> None:
        """Replace the content by that of `state_dict()`. Other keys are ignored."""
        states = [*state["layers"], *(saved for blocks in state["camera"] for saved in blocks)]
        for cache, saved in zip(self, states, strict=True):
            cache.load_state_dict(saved, device)

    def _of_camera(self) -> Iterator[KVCache]:
        for blocks in self.camera:
            yield from blocks
