"""Eviction policies that keep keyframes. All other frames are evicted immediately after their prediction.

session = StreamSession(model, policy=MotionKeyframes(min_flow=20, max_frames=24))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvggt.model.eviction import EvictionPolicy, PolicyContext
from streamvggt.stream.policies.overlap import mean_displacement, subsampled_points


@dataclass(frozen=True)
class Keyframes(EvictionPolicy):
    """Keep every n-th frame.

    Attributes:
        interval: Number of frames from one keyframe to the next.
        max_frames: Maximum number of keyframes: the first, which defines the world, and the latest ones.

    Reference: LingBot-Map (keyframes by interval).
    """

    interval: int = 8
    max_frames: int = 24

    def __post_init__(self):
        if self.interval < 1:
            raise ValueError(f"keyframes come every 1, 2, 3, … frames, not interval={self.interval}")
        check_max_frames(self.max_frames)

    @property
    def capacity(self) -> int:
        return self.max_frames + 1

    def select(self, frames: Sequence[int], context: PolicyContext | None) -> Sequence[int]:
        return first_and_recent(frames, self.max_frames) if frames[-1] % self.interval == 0 else frames[:-1]


@dataclass(frozen=True)
class MotionKeyframes(EvictionPolicy):
    """Keep a frame if the image has moved since the last keyframe.

    The predicted depth of the frame is unprojected and projected into the last keyframe with the predicted cameras. The
    mean pixel displacement is the criterion. For batched streams, the stream with the largest displacement decides for
    all. The host needs the frame of each slot, so each frame costs one host-device synchronization.

    Policy state: "key_pose", the pose encoding of the last keyframe. (B, 9)

    Attributes:
        min_flow: Minimum mean displacement of a keyframe in pixels. A frame without overlap is also a keyframe.
        max_frames: Maximum number of keyframes: the first, which defines the world, and the latest ones.
        max_interval: Maximum number of frames from one keyframe to the next.

    Reference: LingBot-Map (keyframes by motion).
    """

    min_flow: float = 20.0
    max_frames: int = 24
    max_interval: int = 30

    is_index_based = False
    required_heads = ("camera", "depth")

    def __post_init__(self):
        if not self.min_flow >= 0 or self.max_interval < 0:
            raise ValueError(f"distances are not negative: min_flow={self.min_flow}, max_interval={self.max_interval}")
        check_max_frames(self.max_frames)

    @property
    def capacity(self) -> int:
        return self.max_frames + 1

    def select(self, frames: Sequence[int], context: PolicyContext) -> Sequence[int]:
        *keys, newest = frames
        if keys and newest - keys[-1] <= self.max_interval and not self._exceeds_flow(context):
            return keys
        context.policy_state["key_pose"] = context.result.cam_from_world_enc[:, 0].clone()  # not the caller's tensor
        return first_and_recent(frames, self.max_frames)

    def _exceeds_flow(self, context: PolicyContext) -> bool:
        result = context.result
        distance = mean_displacement(
            subsampled_points(result),
            result.cam_from_world_enc[:, 0],
            context.policy_state["key_pose"],
            result.image_size,
        )
        return distance.max().item() >= self.min_flow


def check_max_frames(max_frames: int) -> None:
    if max_frames < 2:
        raise ValueError(
            f"the first frame and a latest one at least must be held: max_frames={max_frames} is too small"
        )


def first_and_recent(frames: Sequence[int], max_frames: int) -> Sequence[int]:
    """Return the first and the latest of `frames`, `max_frames` in total. `max_frames` is at least 2."""
    return frames if len(frames) <= max_frames else [frames[0], *frames[1 - max_frames :]]
