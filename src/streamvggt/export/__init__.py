"""Write streams to result folders and export the results.

writer = ResultWriter("out")
for frame in frames:
    writer.add(frame, session.push(frame.image))

EXPORTERS["glb"](ReconstructionResult("out"), Path("out"), ExportOptions(conf_percentile=30))
"""

from collections.abc import Callable
from pathlib import Path

from streamvggt.export.adjustments import Adjustments, KnownDistance, adjusted, camera_change
from streamvggt.export.background_writer import BackgroundWriter
from streamvggt.export.check import check_result
from streamvggt.export.colmap import export_colmap
from streamvggt.export.corrections import Corrections, write_corrections
from streamvggt.export.depth import export_depth
from streamvggt.export.extra import export_extra
from streamvggt.export.frame_file import DamagedResult
from streamvggt.export.glb import export_glb
from streamvggt.export.mesh import export_mesh
from streamvggt.export.nerfstudio import export_nerfstudio
from streamvggt.export.options import ExportOptions
from streamvggt.export.ply import export_ply
from streamvggt.export.points import NothingLeft, PointCloud, merged_points
from streamvggt.export.rerun_file import export_rerun
from streamvggt.export.result import ReconstructionResult, frame_files
from streamvggt.export.result_frame import FrameCamera, ResultFrame
from streamvggt.export.tum import export_tum
from streamvggt.export.video import export_video
from streamvggt.export.writer import ResultWriter

EXPORTERS: dict[str, Callable[[ReconstructionResult, Path, ExportOptions], Path]] = {
    "glb": export_glb,
    "ply": export_ply,
    "colmap": export_colmap,
    "tum": export_tum,
    "depth": export_depth,
    "video": export_video,
    "extra": export_extra,
    "mesh": export_mesh,
    "nerfstudio": export_nerfstudio,
    "rerun": export_rerun,
}
"""Each exporter writes one file or folder and returns its path. Raises `NothingLeft` if the output is empty."""

__all__ = [
    "EXPORTERS",
    "Adjustments",
    "BackgroundWriter",
    "Corrections",
    "DamagedResult",
    "ExportOptions",
    "FrameCamera",
    "KnownDistance",
    "NothingLeft",
    "PointCloud",
    "ReconstructionResult",
    "ResultFrame",
    "ResultWriter",
    "adjusted",
    "camera_change",
    "check_result",
    "export_colmap",
    "export_depth",
    "export_extra",
    "export_glb",
    "export_mesh",
    "export_nerfstudio",
    "export_ply",
    "export_rerun",
    "export_tum",
    "export_video",
    "frame_files",
    "merged_points",
    "write_corrections",
]
