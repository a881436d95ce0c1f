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
