"""Every policy that evicts, small enough to be full after a few frames."""

from streamvggt import (
    FrameDiversity,
    Keyframes,
    MotionKeyframes,
    ProbeSaliency,
    SelfSelective,
    SlidingWindow,
    TokenDiversity,
)

BOUNDED = [
    SlidingWindow(1, 2),
    SlidingWindow(1, 2, 5),
    Keyframes(3, 3),
    MotionKeyframes(4.0, 4, 3),
    FrameDiversity(4, 2),
    TokenDiversity(3, 2),
    SelfSelective(3, 2, anchor_max_coverage=0.9),
    ProbeSaliency(3, 2),
]
