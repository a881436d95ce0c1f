"""Streaming 3D reconstruction with a causal visual-geometry transformer."""

from streamvggt.model.vggt import VGGT, StreamVGGT
from streamvggt.model.weights import load_model
from streamvggt.prediction import Prediction
from streamvggt.stream.policy import KeepAll, Window
from streamvggt.stream.session import StreamSession

__all__ = ["VGGT", "KeepAll", "Prediction", "StreamSession", "StreamVGGT", "Window", "load_model"]
