"""Memories of key frames: other frames are predicted with their help, and forgotten at once.

session = StreamSession(model, policy=MotionKeyFrames(pixels=20, held=24))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvggt.model.memory import Evidence, Policy
from streamvggt.stream.policies.overlap import mean_displacement, thinned_points


@dataclass(frozen=True)
class KeyFrames(Policy):
    """Every so many frames one stays (LingBot-Map's key frames by interval).

    every: frames from one key frame to the next.
    held: key frames that stay at most: the first, whose camera is the world, and the latest.
    """

    every: int = 8
    held: int = 24

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"key frames come every 1, 2, 3, … frames, not every={self.every}")
        check_held(self.held)

    @property
    def capacity(self) -> int:
        return self.held + 1

    def keep(self, frames: Sequence[int], evidence: Evidence | None) -> Sequence[int]:
        return first_and_latest(frames, self.held) if frames[-1] % self.every == 0 else frames[:-1]


@dataclass(frozen=True)
class MotionKeyFrames(Policy):
    """A frame stays when the picture has moved (LingBot-Map's key frames by motion).

    Its predicted depth is put into the world and seen from the last key frame, with the predicted cameras of both; the
    mean distance of where its pixels were and are decides. Of several streams that advance together, the one that has
    moved most decides for all. Which frame a slot holds is known to the host, so it reads one number per frame.

    pixels: mean distance from which on a frame is a key frame. A frame that sees nothing of the last one is one, too.
    held: key frames that stay at most: the first, whose camera is the world, and the latest.
    longest: after so many frames that were none, the next is a key frame in any case.

    Notes: "key_pose": the last key frame's pose encoding. (B, 9)
    """

    pixels: float = 20.0
    held: int = 24
    longest: int = 30

    by_number = False
    looks_at = ("camera", "depth")

    def __post_init__(self):
        if not self.pixels >= 0 or self.longest < 0:
            raise ValueError(f"distances are not negative: pixels={self.pixels}, longest={self.longest}")
        check_held(self.held)

    @property
    def capacity(self) -> int:
        return self.held + 1

    def keep(self, frames: Sequence[int], evidence: Evidence) -> Sequence[int]:
        *keys, newest = frames
        if keys and newest - keys[-1] <= self.longest and not self._has_moved(evidence):
            return keys
        evidence.notes["key_pose"] = evidence.result.cam_from_world_enc[:, 0]
        return first_and_latest(frames, self.held)

    def _has_moved(self, evidence: Evidence) -> bool:
        result = evidence.result
        distance = mean_displacement(
            thinned_points(result), result.cam_from_world_enc[:, 0], evidence.notes["key_pose"], result.image_size
        )
        return distance.max().item() >= self.pixels


def check_held(held: int) -> None:
    if held < 2:
        raise ValueError(f"the first frame and a latest one at least must be held: held={held} is too small")


def first_and_latest(frames: Sequence[int], held: int) -> Sequence[int]:
    """The first and the latest of `frames`, `held` together. At least two are asked for."""
    return frames if len(frames) <= held else [frames[0], *frames[1 - held :]]
