"""Show a growing reconstruction in the rerun viewer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streamvggt.export import ExportOptions, ResultFrame
from streamvggt.export.rerun_file import RerunRecording
from streamvggt.model.vggt import VGGT
from streamvggt.stream.feed import predicted
from streamvggt.stream.frames import FrameSource
from streamvggt.stream.policy import parse_policy
from streamvggt.stream.session import StreamSession

FRAME_POINTS = 30_000
"""Maximum number of points per frame in the viewer."""


def view_in_rerun(
    frames: FrameSource,
    model: VGGT,
    policy: str,
    options: ExportOptions,
    change: Callable[[ResultFrame], ResultFrame],
) -> None:
    """Start the rerun viewer and log each frame after its prediction. The viewer stays open.

    `change` is applied to each frame. The confidence percentile applies per frame, because later frames are unknown.
    """
    recording = RerunRecording(options)
    recording.stream.spawn(default_blueprint=recording.layout())
    session = StreamSession(model, policy=parse_policy(policy))
    for position, (frame, prediction) in enumerate(predicted(frames, session)):
        stored = change(ResultFrame.from_prediction(frame, prediction))
        _, conf = stored.predicted(options.point_source)
        conf = conf[options.candidate_mask(stored)]
        threshold = np.percentile(conf, options.conf_percentile) if len(conf) else np.inf
        recording.log(position, stored, threshold, FRAME_POINTS)
