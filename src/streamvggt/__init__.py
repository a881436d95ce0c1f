"""Streaming 3D reconstruction with a causal visual-geometry transformer.

Importing this package loads nothing else. The first use of a name below imports the module of that name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamvggt.version import __version__ as __version__

if TYPE_CHECKING:
    from streamvggt.frame import Frame as Frame
    from streamvggt.model.vggt import VGGT as VGGT
    from streamvggt.model.vggt import StreamVGGT as StreamVGGT
    from streamvggt.model.weights import load_model as load_model
    from streamvggt.prediction import Prediction as Prediction
    from streamvggt.stream.frames import load_frames as load_frames
    from streamvggt.stream.policies.frame_diversity import FrameDiversity as FrameDiversity
    from streamvggt.stream.policies.keyframes import Keyframes as Keyframes
    from streamvggt.stream.policies.keyframes import MotionKeyframes as MotionKeyframes
    from streamvggt.stream.policies.probe_saliency import ProbeSaliency as ProbeSaliency
    from streamvggt.stream.policies.self_selective import SelfSelective as SelfSelective
    from streamvggt.stream.policies.sliding_window import KeepAll as KeepAll
    from streamvggt.stream.policies.sliding_window import SlidingWindow as SlidingWindow
    from streamvggt.stream.policies.token_diversity import TokenDiversity as TokenDiversity
    from streamvggt.stream.policies.trajectory import Trajectory as Trajectory
    from streamvggt.stream.pool import PoolFull as PoolFull
    from streamvggt.stream.pool import SessionPool as SessionPool
    from streamvggt.stream.session import StreamSession as StreamSession
    from streamvggt.stream.submaps.options import SubmapOptions as SubmapOptions
    from streamvggt.stream.submaps.session import SubmapSession as SubmapSession

_MODULES = {
    "VGGT": "model.vggt",
    "Frame": "frame",
    "FrameDiversity": "stream.policies.frame_diversity",
    "KeepAll": "stream.policies.sliding_window",
    "Keyframes": "stream.policies.keyframes",
    "MotionKeyframes": "stream.policies.keyframes",
    "PoolFull": "stream.pool",
    "Prediction": "prediction",
    "ProbeSaliency": "stream.policies.probe_saliency",
    "SelfSelective": "stream.policies.self_selective",
    "SessionPool": "stream.pool",
    "SlidingWindow": "stream.policies.sliding_window",
    "StreamSession": "stream.session",
    "StreamVGGT": "model.vggt",
    "SubmapOptions": "stream.submaps.options",
    "SubmapSession": "stream.submaps.session",
    "TokenDiversity": "stream.policies.token_diversity",
    "Trajectory": "stream.policies.trajectory",
    "load_frames": "stream.frames",
    "load_model": "model.weights",
}
"""Public names and their modules in this package."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
