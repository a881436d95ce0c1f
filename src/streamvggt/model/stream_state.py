"""State of a stream besides its KV caches."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from streamvggt.model.eviction import PolicyState, copy_state, state_to_device
from streamvggt.model.tracking.stream import TrackMemory


@dataclass(eq=False)
class StreamState:
    """Frame counts, tracks and policy state of a stream.

    Attributes:
        tracks: Features and points for tracking.
        num_frames: Number of frames so far.
        num_stored: Number of stored frames, including frames evicted later. This is the time of the next frame.
        kept_frames: Indices of the frames that the next frame attends to.
        opening: Patch tokens of the first frames until the joint first step is complete. (B, S, h·w, C)
        image_size: Height and width of the images in pixels. None before the first frame.
        batch_size: Number of streams. None before the first frame.
        policy_state: State of the policy by name.
    """

    tracks: TrackMemory
    num_frames: int = 0
    num_stored: int = 0
    kept_frames: list[int] = field(default_factory=list)
    opening: Tensor | None = None
    image_size: tuple[int, int] | None = None
    batch_size: int | None = None
    policy_state: dict[str, PolicyState] = field(default_factory=dict)

    def snapshot(self) -> StreamState:
        """Copy the state. Tensors are not copied."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(StreamState)}
        values["kept_frames"] = list(self.kept_frames)
        values["policy_state"] = copy_state(self.policy_state)
        values["tracks"] = replace(self.tracks, maps=list(self.tracks.maps))
        return StreamState(**values)

    def restore(self, snapshot: StreamState) -> None:
        """Replace the state by a snapshot."""
        vars(self).update(vars(snapshot.snapshot()))

    def state_dict(self) -> dict[str, object]:
        """Return the state as tensors, numbers and lists."""
        return {
            "num_frames": self.num_frames,
            "num_stored": self.num_stored,
            "kept_frames": list(self.kept_frames),
            "opening": self.opening,
            "image_size": list(self.image_size) if self.image_size else None,
            "batch_size": self.batch_size,
            "tracks": self.tracks.state_dict(),
            "policy_state": copy_state(self.policy_state),
        }

    def load_state_dict(self, state: dict[str, object], device: torch.device) -> None:
        """Replace the state by that of `state_dict()`. Other keys are ignored."""
        self.num_frames, self.num_stored = state["num_frames"], state["num_stored"]
        self.kept_frames = list(state["kept_frames"])
        self.opening = None if state["opening"] is None else state["opening"].to(device)
        self.image_size = tuple(state["image_size"]) if state["image_size"] else None
        self.batch_size = state["batch_size"]
        self.tracks.load_state_dict(state["tracks"], device)
        self.policy_state = state_to_device(state["policy_state"], device)
