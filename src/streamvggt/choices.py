"""Values of options that the library and the command line share.

Other modules import them from here. This module imports no package, so that `streamvggt COMMAND --help` is fast.
"""

from __future__ import annotations

from typing import Literal

KVCacheDtype = Literal["auto", "int8"]
CameraCacheMode = Literal["per_iteration", "shared"]
StepMode = Literal["eager", "cuda_graph", "compile"]
DtypeName = Literal["float32", "bfloat16", "float16"]
PointSource = Literal["depth", "head"]
ExportFormat = Literal["glb", "ply", "colmap", "tum", "depth", "video", "extra", "mesh", "nerfstudio", "rerun"]

RELEASED_HEADS = ("camera", "depth", "points", "track")
"""Heads of the released networks."""

CO3D_CATEGORIES = (
    *("apple", "backpack", "banana", "baseballbat", "baseballglove", "bench", "bicycle", "bottle", "bowl"),
    *("broccoli", "cake", "car", "carrot", "cellphone", "chair", "cup", "donut", "hairdryer", "handbag", "hydrant"),
    *("keyboard", "laptop", "microwave", "motorcycle", "mouse", "orange", "parkingmeter", "pizza", "plant"),
    *("stopsign", "teddybear", "toaster", "toilet", "toybus", "toyplane", "toytrain", "toytruck", "tv", "umbrella"),
    *("vase", "wineglass"),
)
"""The 41 "seen" categories of CO3Dv2, in the order in which frames are drawn."""

DEPTH_ALIGNMENTS = ("median", "scale", "scale&shift", "metric", "lstsq", "lad", "scale_exact", "scale&shift_exact")
"""Alignments of depth maps in evaluations."""

SCENE_TYPES = ("all", "rooms", "video", "outdoor", "far-apart")
"""Scene types of the procedural world."""
