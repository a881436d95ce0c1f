"""Settings of a run, and the status of a scene."""

from dataclasses import dataclass

from streamvggt.choices import PointSource
from streamvggt.stream.policy import DEFAULT_POLICY


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run.

    Attributes:
        weights: Menu entry of the weights.
        policy: Eviction policy, as for `parse_policy`.
        fps: Frames per second of videos and cameras. None takes every frame.
        max_frames: Maximum number of frames. None takes all.
        point_head: Also run the point head.
        max_seconds: Maximum duration in seconds. None disables the limit.
    """

    weights: str
    policy: str = DEFAULT_POLICY
    fps: float | None = None
    max_frames: int | None = 100
    point_head: bool = False
    max_seconds: float | None = None


@dataclass(frozen=True)
class Status:
    """Status of a scene for the viewer.

    Attributes:
        state: "ready" (no run yet), "loading" (weights), "running", "finished", "stopped" or "failed".
        message: Reason of a failure, or a notice for the user.
        run: Run number. The viewer resets when the number changes.
        num_frames: Number of finished frames.
        expected: Expected number of frames. None if unknown.
        fps: Speed of the latest frames. None before the second frame.
        seconds_left: Estimated remaining time in seconds. None before the second frame.
        memory_mb: Memory of the stream in MB.
        sources: Available point sources: "depth", "head".
        num_queries: Number of tracked points.
    """

    state: str = "ready"
    message: str = ""
    run: int = 0
    weights: str = ""
    num_frames: int = 0
    expected: int | None = None
    fps: float | None = None
    seconds_left: float | None = None
    memory_mb: float = 0.0
    sources: tuple[PointSource, ...] = ("depth",)
    num_queries: int = 0
