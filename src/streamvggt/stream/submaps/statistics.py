"""Statistics of a stream of submaps."""

from __future__ import annotations

from dataclasses import dataclass

from streamvggt.stream.session import StreamStatistics
from streamvggt.stream.submaps.submap_alignment import SubmapAlignment


@dataclass(frozen=True)
class SubmapEvent:
    """A restart of a submap, or a rejected loop.

    Attributes:
        frame: Frame at which it was detected.
        reason: Why, as one phrase.
    """

    frame: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SubmapStatistics(StreamStatistics):
    """Statistics of a stream of submaps. Memory and times include all submaps.

    Attributes:
        num_submaps: Submaps that have been active.
        num_pose_alignments: Submaps that were aligned by a single camera because the points did not fit.
        num_restarts: Submaps that were restarted.
        restarts: The latest restarts.
        num_false_failures: Frames that failed the checks in a restarted submap, too. The old submap was kept.
        last_alignment: The latest alignment.
        num_loops: Accepted loops.
        num_rejected_loops: Candidate loops that failed the verification.
        rejected_loops: The latest of them.
    """

    num_submaps: int
    num_pose_alignments: int
    num_restarts: int
    restarts: tuple[SubmapEvent, ...]
    num_false_failures: int
    last_alignment: SubmapAlignment | None
    num_loops: int
    num_rejected_loops: int
    rejected_loops: tuple[SubmapEvent, ...]
