"""Streaming 3D reconstruction with a causal visual-geometry transformer."""

from streamvggt.frame import Frame
from streamvggt.model.vggt import VGGT, StreamVGGT
from streamvggt.model.weights import load_model
from streamvggt.prediction import Prediction
from streamvggt.stream.frames import load_frames
from streamvggt.stream.policies.frame_diversity import FrameDiversity
from streamvggt.stream.policies.keyframes import Keyframes, MotionKeyframes
from streamvggt.stream.policies.probe_saliency import ProbeSaliency
from streamvggt.stream.policies.self_selective import SelfSelective
from streamvggt.stream.policies.sliding_window import KeepAll, SlidingWindow
from streamvggt.stream.policies.token_diversity import TokenDiversity
from streamvggt.stream.policies.trajectory import Trajectory
from streamvggt.stream.pool import PoolFull, SessionPool
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession

__all__ = [
    "VGGT",
    "Frame",
    "FrameDiversity",
    "KeepAll",
    "Keyframes",
    "MotionKeyframes",
    "PoolFull",
    "Prediction",
    "ProbeSaliency",
    "SelfSelective",
    "SessionPool",
    "SlidingWindow",
    "StreamSession",
    "StreamVGGT",
    "SubmapOptions",
    "SubmapSession",
    "TokenDiversity",
    "Trajectory",
    "load_frames",
    "load_model",
]
