"""Export the colored point cloud as a PLY file."""

from pathlib import Path

from streamvggt.export.options import ExportOptions
from streamvggt.export.points import NothingLeft, merged_points
from streamvggt.export.result import ReconstructionResult
from streamvggt.files import atomic_write


def export_ply(result: ReconstructionResult, folder: Path, options: ExportOptions) -> Path:
    """Write `points.ply`: binary little endian, in the world of the result (OpenCV axes of the first camera).

    Raises:
        NothingLeft: If the options remove all points. Nothing is written.
    """
    import trimesh

    cloud = merged_points(result, options)
    if len(cloud) == 0:
        raise NothingLeft(f"{options.nothing_left()}. points.ply is not written")
    path = folder / "points.ply"
    with atomic_write(path) as temporary:
        trimesh.PointCloud(cloud.points, cloud.colors).export(temporary)
    return path
