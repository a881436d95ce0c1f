"""The part of a prediction that submap alignment uses: one camera and a few hundred points per frame.

N points per frame.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras, cameras_from_pose_enc, invert_pose
from streamvggt.geometry.pointmap import project, unproject
from streamvggt.prediction import Prediction
from streamvggt.transfer import widest_float


@dataclass(frozen=True)
class FrameObservation:
    """Subsampled prediction of one frame in the world of one submap, on the CPU.

    The pixels are the same in every submap. Without depth and point heads, N is 0.

    Attributes:
        points: World points. (N, 3)
        depth: Distance along the optical axis. (N,)
        conf: Confidence, at least 1. (N,)
        cam_from_world: Pose, float64. (3, 4)
    """

    points: Tensor
    depth: Tensor
    conf: Tensor
    cam_from_world: Tensor

    @classmethod
    def from_prediction(cls, prediction: Prediction, max_points: int) -> FrameObservation:
        """Subsample the prediction of one frame on an even pixel grid.

        Uses depth and camera if the depth head ran, else the point head (VGGT, arXiv 2503.11651, Sec. 4.3).

        Args:
            prediction: Prediction with B = S = 1.
            max_points: Maximum number of points.
        """
        height, width = prediction.image_size
        spacing = max(1, math.ceil(math.sqrt(height * width / max_points)))
        rows, columns = (slice((spacing - 1) // 2, None, spacing),) * 2
        pose_enc = prediction.cam_from_world_enc[0, 0]
        widest = widest_float(pose_enc.device)
        camera = cameras_from_pose_enc(pose_enc.to(widest), prediction.image_size)
        empty = camera.cam_from_world.new_zeros(0)
        points, depth, conf = empty.reshape(0, 3), empty, empty
        if prediction.depth is not None:
            # Intrinsics of the subsampled grid.
            intrinsics = camera.intrinsics.clone()
            intrinsics[:2, 2] -= rows.start
            intrinsics[:2] *= 1 / spacing
            depth = prediction.depth[0, 0, rows, columns, 0].to(widest)
            points = unproject(depth, Cameras(camera.cam_from_world, intrinsics)).flatten(0, 1)
            depth, conf = depth.flatten(), prediction.depth_conf[0, 0, rows, columns].flatten()
        elif prediction.points is not None:
            points = prediction.points[0, 0, rows, columns].to(widest).flatten(0, 1)
            depth, conf = project(points, camera)[1], prediction.points_conf[0, 0, rows, columns].flatten()
        # Copy once, because each copy to the host synchronizes with the device.
        packed = torch.cat([camera.cam_from_world.flatten(), *(x.to(widest).flatten() for x in (points, depth, conf))])
        cam_from_world, points, depth, conf = packed.cpu().double().split([12, 3 * len(depth), len(depth), len(depth)])
        return cls(points.float().reshape(-1, 3), depth.float(), conf.float(), cam_from_world.reshape(3, 4).clone())

    @property
    def center(self) -> Tensor:
        """Camera center in the world. (3,)"""
        return invert_pose(self.cam_from_world)[:, 3]

    @property
    def is_finite(self) -> bool:
        """Whether the pose is finite, and at least one point if the frame has points."""
        has_points = not len(self.depth) or bool(self.depth.isfinite().any() & self.conf.isfinite().any())
        return has_points and bool(self.cam_from_world.isfinite().all())

    @cached_property
    def median_depth(self) -> float | None:
        """Median of the finite depths, or None if there are none."""
        finite = self.depth[self.depth.isfinite()]
        return finite.median().item() if len(finite) else None

    @cached_property
    def median_confidence(self) -> float:
        """Median of the finite confidences minus their minimum value 1, or 0 if there are none."""
        finite = self.conf[self.conf.isfinite()]
        return finite.median().item() - 1 if len(finite) else 0.0

    @property
    def num_bytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def state_dict(self) -> list[Tensor]:
        """Return the constructor's arguments, in order."""
        return [getattr(self, field.name) for field in fields(self)]


def scene_scale(observations: Iterable[FrameObservation]) -> float:
    """Return the median of the frames' median depths, or 1 if no frame has depth."""
    depths = [observation.median_depth for observation in observations]
    return statistics.median([depth for depth in depths if depth is not None] or [1.0])
