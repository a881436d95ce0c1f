"""Push the frames of a source into a session."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from itertools import islice

from streamvggt.frame import Frame
from streamvggt.prediction import Prediction
from streamvggt.stream.policies.trajectory import num_joint
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.session import SubmapSession


def predicted(
    frames: Iterable[Frame], session: StreamSession | SubmapSession
) -> Generator[tuple[Frame, Prediction], None, None]:
    """Push all frames. The scale frames of a new stream are predicted in one joint step.

    Closing the iterator also ends the reading of the frames.

    Yields:
        Each frame with its prediction, S = 1.
    """
    with closing(frame for frame in frames) as remaining:
        num_first = num_joint(session.model) if session.num_frames == 0 else 0
        if isinstance(session, SubmapSession):
            num_first = min(num_first, session.submaps.overlap)
        if first := list(islice(remaining, num_first)):
            together = session.start(first)
            for number, frame in enumerate(first):
                yield frame, together.select_frame(number)
        for frame in remaining:
            yield frame, session.push(frame)
