"""Settings of a run, and the status of a scene."""

from collections.abc import Collection
from dataclasses import dataclass

from streamvggt.choices import PointSource
from streamvggt.stream.policy import DEFAULT_POLICY
from streamvggt.stream.weights_note import RANDOM_WEIGHTS_NOTE, weights_note


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


def heads_to_run(settings: RunSettings, available: Collection[str], num_queries: int) -> tuple[list[str], str]:
    """Return the heads to run, and a message for the user.

    Args:
        settings: Settings of the run.
        available: Heads of the weights.
        num_queries: Number of points to track.

    Raises:
        ValueError: If the weights have no head that the settings select.
    """
    note = weights_note(settings.weights)
    message = note if note == RANDOM_WEIGHTS_NOTE else ""
    heads = ["camera", "depth"]
    if settings.point_head:
        if "points" not in available:
            raise ValueError(f"The weights {settings.weights} have no point head. Switch it off.")
        heads.append("points")
    if num_queries and "track" in available:
        heads.append("track")
    elif num_queries:
        message = f"The weights {settings.weights} have no tracker. The points are not tracked. {message}"
    return heads, message


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

    def text(self, kind: str) -> str:
        """Return the status line of a scene of `kind` ("images", "video" or "live")."""
        count = f"{self.num_frames} {'frame' if self.num_frames == 1 else 'frames'}"
        speed = "" if self.fps is None else f" · {self.fps:.{2 if self.fps < 1 else 1}f} frames/s"
        match self.state:
            case "ready":
                return "Waiting for the camera …" if kind == "live" else "Ready. Press Start."
            case "loading":
                return f"Loading the weights {self.weights} and the first frame …"
            case "running":
                total = "" if self.expected is None else f" of {self.expected}"
                left = f" · {duration(self.seconds_left)} left" if (self.seconds_left or 0) > 0.5 else ""
                memory = f" · memory {self.memory_mb:.0f} MB"
                return f"Frame {self.num_frames}{total}{speed}{left}{memory} · {self.weights}"
            case "failed":
                return f"Failed. The viewer shows the finished {count}." if self.num_frames else "Failed."
            case _:
                return f"{'Stopped' if self.state == 'stopped' else 'Done'}: {count}{speed} · {self.weights}"


def duration(seconds: float) -> str:
    """Return a duration in words for a status line."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
