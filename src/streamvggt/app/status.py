"""What a run is asked to do, and how a scene is doing."""

from dataclasses import dataclass

from streamvggt.export.result import PointSource
from streamvggt.stream.policy import DEFAULT_POLICY


@dataclass(frozen=True)
class RunSettings:
    """weights: of the menu. policy: as of `parse_policy`. fps: of videos and cameras; None: every frame.

    max_frames: None: all. point_head: run it beside the depth head, for points that need no unprojecting.
    max_seconds: a run ends after this; None: no bound.
    """

    weights: str
    policy: str = DEFAULT_POLICY
    fps: float | None = None
    max_frames: int | None = 100
    point_head: bool = False
    max_seconds: float | None = None


@dataclass(frozen=True)
class Status:
    """How a scene is doing, as the viewer is told.

    state: "ready" (nothing has run), "loading" (weights), "running", "finished", "stopped" or "failed".
    message: why it failed, or what else the visitor should know.
    run: counts the runs, so that the viewer knows when to begin anew.
    num_frames, expected: done, and of how many; None where nobody knows.
    fps, seconds_left: of the latest frames; None before the second.
    memory_mb: of the stream's memory.
    sources: where points can be had from: "depth", "head".
    num_queries: points that are followed.
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
