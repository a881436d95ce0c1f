"""Streaming 3D reconstruction with a causal visual-geometry transformer."""

from streamvggt.frame import Frame
from streamvggt.model.vggt import VGGT, StreamVGGT
from streamvggt.model.weights import load_model
from streamvggt.prediction import Prediction
from streamvggt.stream.frames import load_frames
from streamvggt.stream.policies.frame_blocks import FrameBlocks
from streamvggt.stream.policies.key_diversity import KeyDiversity
from streamvggt.stream.policies.key_frames import KeyFrames, MotionKeyFrames
from streamvggt.stream.policies.probe_saliency import ProbeSaliency
from streamvggt.stream.policies.self_selective import SelfSelective
from streamvggt.stream.policies.window import KeepAll, Window
from streamvggt.stream.pool import PoolFull, SessionPool
from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.session import SubmapSession

__all__ = [
    "VGGT",
    "Frame",
    "FrameBlocks",
    "KeepAll",
    "KeyDiversity",
    "KeyFrames",
    "MotionKeyFrames",
    "PoolFull",
    "Prediction",
    "ProbeSaliency",
    "SelfSelective",
    "SessionPool",
    "StreamSession",
    "StreamVGGT",
    "SubmapOptions",
    "SubmapSession",
    "Window",
    "load_frames",
    "load_model",
]
