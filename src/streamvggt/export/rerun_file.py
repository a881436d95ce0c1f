"""Export a recording for the rerun viewer.

    world                  OpenCV axes of the first camera: x right, y down, z forward
    world/camera           pose and intrinsics of the frame
    world/camera/image     processed image
    world/camera/depth     depth map, 0 where it is missing
    world/points/000000    points of a frame
    world/path             camera centers of all frames so far

Timelines: `frame`, the position in the stream, and `time`, if the frames have times. The layout shows the world beside
the current image and depth map.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamvggt.export.depth import usable_depth
from streamvggt.export.options import ExportOptions
from streamvggt.export.points import confidence_threshold
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import FrameCamera, ResultFrame
from streamvggt.extras import require
from streamvggt.files import atomic_write

if TYPE_CHECKING:
    from rerun import RecordingStream
    from rerun.blueprint import Blueprint

JPEG_QUALITY = 85


def export_rerun(result: ReconstructionResult, folder: Path, options: ExportOptions) -> Path:
    """Write `scene.rrd`: cameras, images, depth and points over time. Open it with `rerun scene.rrd`.

    Raises:
        MissingExtra: If rerun-sdk is not installed.
    """
    recording = RerunRecording(options)
    positions = options.positions(result)
    threshold = confidence_threshold(result, options)
    budget = max(options.max_points // len(positions), 1)
    path = folder / "scene.rrd"
    with atomic_write(path) as temporary:
        recording.stream.save(temporary, default_blueprint=recording.layout())
        for position, frame in result.frames("rerun", positions):
            recording.log(position, frame, threshold, budget)
        recording.stream.disconnect()  # closes the file
    return path


class RerunRecording:
    """A recording that grows frame by frame.

    Args:
        options: Selection of points.

    Attributes:
        stream: Connect it to a file or a viewer before the first frame.
    """

    def __init__(self, options: ExportOptions):
        self._rerun = require("rerun", "rerun")
        self.options = options
        self.stream: RecordingStream = self._rerun.RecordingStream("streamvggt")
        self._centers: list[np.ndarray] = []

    def layout(self) -> Blueprint:
        """Return the layout of the viewer. The 3D view leaves out the depth map, whose points are unfiltered."""
        rrb = require("rerun.blueprint", "rerun")
        images = [
            rrb.Spatial2DView(origin="world/camera", contents=f"world/camera/{name}", name=name)
            for name in ("image", "depth")
        ]
        world = rrb.Spatial3DView(origin="world", contents=["$origin/**", "- /world/camera/depth"], name="world")
        return rrb.Blueprint(rrb.Horizontal(world, rrb.Vertical(*images), column_shares=[2, 1]), collapse_panels=True)

    def log(self, position: int, frame: ResultFrame, threshold: float, num_points: int) -> None:
        """Add a frame.

        Args:
            position: Position in the stream.
            frame: The frame.
            threshold: Minimum confidence of points.
            num_points: Maximum number of points, sampled uniformly.
        """
        rr, stream = self._rerun, self.stream
        if not self._centers:
            stream.log("world", rr.ViewCoordinates.RDF, static=True)
        stream.set_time("frame", sequence=position)
        if frame.time is not None:
            stream.set_time("time", duration=frame.time)
        self._log_camera(frame)
        stream.log("world/camera/image", rr.Image(frame.image).compress(jpeg_quality=JPEG_QUALITY))
        if frame.depth is not None:
            stream.log("world/camera/depth", rr.DepthImage(usable_depth(frame), meter=1.0))
        points, conf = frame.world_points(self.options.point_source)
        chosen = np.flatnonzero(self.options.candidate_mask(frame) & (conf >= threshold))
        if len(chosen) > num_points:
            chosen = np.random.default_rng(position).choice(chosen, num_points, replace=False)
        colors = frame.image.reshape(-1, 3)[chosen]
        stream.log(f"world/points/{position:06d}", rr.Points3D(points.reshape(-1, 3)[chosen], colors=colors))

    def _log_camera(self, frame: FrameCamera) -> None:
        rr, rotation = self._rerun, frame.cam_from_world[:, :3].T
        center = -rotation @ frame.cam_from_world[:, 3]
        self._centers.append(center)
        height, width = frame.image.shape[:2]
        # In rerun the corner of the image is (0, 0).
        K = frame.intrinsics + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        self.stream.log("world/camera", rr.Transform3D(translation=center, mat3x3=rotation))
        self.stream.log(
            "world/camera",
            rr.Pinhole(image_from_camera=K, width=width, height=height, camera_xyz=rr.ViewCoordinates.RDF),
        )
        self.stream.log("world/path", rr.LineStrips3D([np.stack(self._centers)]))
