"""Memories of several streams that run in one batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from streamvggt.choices import CameraCacheMode
from streamvggt.layers.attention import PerStreamPattern
from streamvggt.layers.cached_attention import CachedPattern
from streamvggt.model.memory import KVCacheMemory
from streamvggt.model.stream_memory import StreamMemory
from streamvggt.prediction import Prediction

NO_BATCHED_TRACKING = "a stream that tracks points is computed alone: give the model its own memory"


OPENING_ALONE = "a stream is computed alone until its joint first step is complete: give the model its own memory"


class BatchedMemory(StreamMemory):
    """Batch of independent stream memories. Each stream has its own frames, length and policy.

        prediction = model.step(images, BatchedMemory([door, yard]))  # images (2, S, 3, H, W)

    Layers that process tokens or frames independently run on the full batch, so weights are read once for all streams.
    Attention to the past runs per stream on the stream's own memory:

        stream     door   yard   gate
        encoder   ├──────────────────┤   linear layers, norms, attention within a frame, heads
        memory    ├────┤├────┤├──────┤   PerStreamPattern: one pattern per stream

    Streams that track points are not supported, because the number of points differs between streams.
    """

    def __init__(self, memories: Sequence[KVCacheMemory]):
        """Combine memories.

        Args:
            memories: Memories of one stream each, with the same camera cache mode and without tracking.

        Raises:
            ValueError: If there is no memory, the camera cache modes differ, a stream tracks points, or a joint first
                step is incomplete.
        """
        if len({memory.camera_cache for memory in memories}) != 1:
            raise ValueError("memories: expected at least one, all with the same camera_cache.")
        if any(memory.is_tracking for memory in memories):
            raise ValueError(NO_BATCHED_TRACKING)
        if any(memory.is_opening for memory in memories):
            raise ValueError(OPENING_ALONE)
        self.memories = memories
        self.failures: list[Exception | None] = [None] * len(memories)
        """Error of each stream in the last call. None: the stream advanced."""

    @property
    def camera_cache(self) -> CameraCacheMode:
        """Camera cache mode of all streams."""
        return self.memories[0].camera_cache

    @property
    def is_index_based(self) -> bool:
        """Whether all policies are index-based."""
        return all(memory.is_index_based for memory in self.memories)

    @property
    def is_empty(self) -> list[bool]:
        """Whether the next frame is the first, per stream."""
        return [memory.is_empty for memory in self.memories]

    def validate_inputs(self, batch_size: int, image_size: tuple[int, int], heads: Collection[str]) -> None:
        """Run `KVCacheMemory.validate_inputs` for every stream.

        Raises:
            ValueError: If the batch size differs from the number of memories, a head is not supported, or a stream
                does not accept the inputs.
        """
        if batch_size != len(self.memories):
            raise ValueError(f"images: expected {len(self.memories)} streams, one per memory, got {batch_size}.")
        if "track" in heads:
            raise ValueError(NO_BATCHED_TRACKING)
        for memory in self.memories:
            memory.validate_inputs(1, image_size, heads)

    def begin(self, batch_size: int, image_size: tuple[int, int]) -> None:
        """Run `KVCacheMemory.begin` for every stream."""
        self.failures = [None] * len(self.memories)
        for memory in self.memories:
            memory.begin(1, image_size)

    def layer_patterns(self, num_new: int) -> list[PerStreamPattern]:
        """Return the attention patterns of the global layers for the next frames."""
        return batch_patterns([memory.layer_patterns(num_new) for memory in self.memories])

    def camera_patterns(self, num_new: int) -> list[list[PerStreamPattern]]:
        """Return the attention patterns of the camera trunk per iteration and block."""
        refinements = zip(*(memory.camera_patterns(num_new) for memory in self.memories), strict=True)
        return [batch_patterns(patterns) for patterns in refinements]

    def shared_camera_patterns(self, num_new: int) -> list[list[PerStreamPattern]]:
        """Return the attention patterns of the camera trunk with a "shared" cache, per frame and block."""
        frames = zip(*(memory.shared_camera_patterns(num_new) for memory in self.memories), strict=True)
        return [batch_patterns(patterns) for patterns in frames]

    def times(self, num_new: int) -> Tensor:
        """Return `KVCacheMemory.times` with one row per stream. (B, num_new)"""
        return torch.cat([memory.times(num_new) for memory in self.memories])

    def mlp_hook(self, num_new: int = 1) -> Callable[[int, Tensor], None] | None:
        """Return a hook that passes MLP residuals to the policy of each stream. None if no policy uses it."""
        hooks = [memory.mlp_hook() for memory in self.memories]
        if not any(hooks):
            return None

        def hook(layer: int, residual: Tensor) -> None:
            for own, part in zip(hooks, residual.chunk(len(hooks)), strict=True):
                if own is not None:
                    own(layer, part)

        return hook

    def update(self, num_new: int, result: Prediction) -> None:
        """Run `KVCacheMemory.update` for every stream.

        If a stream fails, its memory is restored and its error is stored in `failures`. Other streams are not affected.
        """
        for stream, memory in enumerate(self.memories):
            if self.failures[stream] is None:
                try:
                    memory.update(num_new, result.select_stream(stream))
                except Exception as error:  # policies can raise any exception
                    self.failures[stream] = error
            if self.failures[stream] is not None:
                memory.rollback()
                memory.mark()  # later frames of this call are rolled back as well

    def commit(self) -> None:
        """Commit the streams that advanced and roll back the failed streams."""
        for memory, failure in zip(self.memories, self.failures, strict=True):
            memory.commit() if failure is None else memory.rollback()

    def rollback(self) -> None:
        """Restore all streams to their state at `begin`."""
        for memory in self.memories:
            memory.rollback()


def batch_patterns(patterns: Sequence[Sequence[CachedPattern]]) -> list[PerStreamPattern]:
    """Convert patterns per stream and layer to one pattern per layer."""
    return [PerStreamPattern(of_layer) for of_layer in zip(*patterns, strict=True)]
