"""Interface between the model and the memory of streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from streamvggt.choices import CameraCacheMode
from streamvggt.layers.attention import AttentionPattern
from streamvggt.model.tracking.stream import TrackMemory
from streamvggt.prediction import Prediction


class StreamMemory(ABC):
    """Memory of streams between calls of the model.

    The model calls the methods in this order:

        validate_inputs
        begin
          reopen                                only while `is_opening`
          times, layer_patterns, camera_patterns, mlp_hook     before a step
          update                                               after a step
        commit, or rollback after an error

    Implementations: `KVCacheMemory` (one stream, or streams with synchronized frames), `BatchedMemory` (independent
    streams), `StaticMemory` (captured steps).

    Attributes:
        camera_cache: KV caches of the camera head: one per iteration, or one shared by all iterations.
        is_tracking: Whether the stream tracks points.
        tracks: Features and points of a tracking stream. None: tracking is not supported.
        is_opening: Whether the joint first step of a network with scale frames is incomplete.
        num_missing: Number of frames that the joint first step lacks.
    """

    camera_cache: CameraCacheMode
    is_tracking: bool = False
    tracks: TrackMemory | None = None
    is_opening: bool = False
    num_missing: int = 0

    @property
    @abstractmethod
    def is_index_based(self) -> bool:
        """Whether several frames can run in one step, because the policy depends on frame indices only."""

    @property
    @abstractmethod
    def is_empty(self) -> bool | list[bool]:
        """Whether the next frame is the first of its stream. One value, or one per batch entry."""

    @abstractmethod
    def validate_inputs(self, batch_size: int, image_size: tuple[int, int], heads: Collection[str]) -> None:
        """Check the next frames against the memory and the policy. Does not modify the memory.

        Args:
            batch_size: Number of streams.
            image_size: Height and width in pixels.
            heads: Names of the heads that run.

        Raises:
            ValueError: If the batch size or image size differs from earlier frames, or a required head is missing.
        """

    @abstractmethod
    def begin(self, batch_size: int, image_size: tuple[int, int]) -> None:
        """Start a call of the model. End the call with `commit`, or undo it with `rollback`."""

    def reopen(self, patch_tokens: Tensor) -> Tensor:
        """Restart the joint first step with the previous and the next frames.

        The memory after the joint step is therefore independent of the number of frames per call.

        Args:
            patch_tokens: Patch tokens of the next frames, at most `num_missing` frames. (B, S, h·w, C)

        Returns:
            Patch tokens of all frames so far. (B, num_frames + S, h·w, C)
        """
        raise AssertionError(f"{type(self).__name__} has no joint first step")

    @abstractmethod
    def layer_patterns(self, num_new: int) -> Sequence[AttentionPattern]:
        """Return the attention patterns of the global layers for the next frames."""

    @abstractmethod
    def camera_patterns(self, num_new: int) -> Sequence[Sequence[AttentionPattern]]:
        """Return the attention patterns of the camera trunk per iteration (one entry if "shared") and block."""

    def shared_camera_patterns(self, num_new: int) -> Sequence[Sequence[AttentionPattern]]:
        """Return the attention patterns of the camera trunk with a "shared" cache, per frame and block."""
        raise AssertionError(f"{type(self).__name__} has no shared camera cache")

    @abstractmethod
    def times(self, num_new: int) -> Tensor:
        """Return the number of earlier stored frames of each of the next frames. (B or 1, num_new)"""

    @abstractmethod
    def mlp_hook(self, num_new: int = 1) -> Callable[[int, Tensor], None] | None:
        """Return the function of layer and MLP residual (B·S, P, C) of frame blocks. None if no policy uses it."""

    @abstractmethod
    def update(self, num_new: int, result: Prediction) -> None:
        """Count the new frames and evict the frames that the policy does not keep.

        Args:
            num_new: Number of new frames.
            result: Prediction of the new frames.
        """

    @abstractmethod
    def commit(self) -> None:
        """Keep the changes since `begin`."""

    @abstractmethod
    def rollback(self) -> None:
        """Restore the bit-exact state at `begin`, so that a partially failed call can be repeated."""
