"""Every memory policy that forgets, small enough to be full after a few frames."""

from streamvggt import (
    FrameBlocks,
    KeyDiversity,
    KeyFrames,
    MotionKeyFrames,
    ProbeSaliency,
    SelfSelective,
    Window,
)

BOUNDED = [
    Window(1, 2),
    Window(1, 2, 5),
    KeyFrames(3, 3),
    MotionKeyFrames(4.0, 4, 3),
    FrameBlocks(4, 2),
    KeyDiversity(3, 2),
    SelfSelective(3, 2, anchor_below=0.9),
    ProbeSaliency(3, 2),
]
