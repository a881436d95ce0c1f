"""Memories of keyframes: other frames are predicted with their help, and forgotten at once.

session = StreamSession(model, policy=MotionKeyframes(min_flow=20, max_frames=24))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvggt.model.memory import EvictionPolicy, PolicyContext
from streamvggt.stream.policies.overlap import mean_displacement, subsampled_points


@dataclass(frozen=True)
class Keyframes(EvictionPolicy):
    """Every so many frames one stays (LingBot-Map's keyframes by interval).

    interval: frames from one keyframe to the next.
    max_frames: keyframes that stay at most: the first, whose camera is the world, and the latest.
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
    """A frame stays when the picture has moved (LingBot-Map's keyframes by motion).

    Its predicted depth is put into the world and seen from the last keyframe, with the predicted cameras of both; the
    mean distance of where its pixels were and are decides. Of several streams that advance together, the one that has
    moved most decides for all. Which frame a slot holds is known to the host, so it reads one number per frame.

    min_flow: mean distance from which on a frame is a keyframe. A frame that sees nothing of the last one is one, too.
    max_frames: keyframes that stay at most: the first, whose camera is the world, and the latest.
    max_interval: after so many frames that were none, the next is a keyframe in any case.

    Notes: "key_pose": the last keyframe's pose encoding. (B, 9)
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
        context.policy_state["key_pose"] = context.result.cam_from_world_enc[:, 0]
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
    """The first and the latest of `frames`, `max_frames` together. At least two are asked for."""
    return frames if len(frames) <= max_frames else [frames[0], *frames[1 - max_frames :]]
