"""What a window keeps of a frame: its camera and a few hundred of its points.

N points of a frame.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from streamvggt.geometry.camera import Cameras, cameras_from_encoding, invert_pose
from streamvggt.geometry.pointmap import project, unproject
from streamvggt.prediction import Prediction


@dataclass(frozen=True)
class Sight:
    """A frame as one window saw it, thinned, in that window's world and on the host.

    points: of the same pixels in every window. (N, 3)
    depth: distance along the optical axis. (N,)
    conf: confidence ≥ 1. (N,)
    cam_from_world: float64. (3, 4)

    Without heads for depth or points N is 0.
    """

    points: Tensor
    depth: Tensor
    conf: Tensor
    cam_from_world: Tensor

    @classmethod
    def of(cls, prediction: Prediction, num_points: int) -> Sight:
        """Of a prediction of one frame, at most `num_points` points on an even grid of its pixels.

        Depth with the camera is preferred to the point head, as the papers do.
        """
        height, width = prediction.image_size
        spacing = max(1, math.ceil(math.sqrt(height * width / num_points)))
        rows, columns = (slice((spacing - 1) // 2, None, spacing),) * 2
        camera = cameras_from_encoding(prediction.pose_enc[0, 0].double(), prediction.image_size)
        empty = camera.cam_from_world.new_zeros(0)
        points, depth, conf = empty.reshape(0, 3), empty, empty
        if prediction.depth is not None:
            # Cameras whose pixels are the grid's.
            intrinsics = camera.intrinsics.clone()
            intrinsics[:2, 2] -= rows.start
            intrinsics[:2] *= 1 / spacing
            depth = prediction.depth[0, 0, rows, columns, 0].double()
            points = unproject(depth, Cameras(camera.cam_from_world, intrinsics)).flatten(0, 1)
            depth, conf = depth.flatten(), prediction.depth_conf[0, 0, rows, columns].flatten()
        elif prediction.points is not None:
            points = prediction.points[0, 0, rows, columns].double().flatten(0, 1)
            depth, conf = project(points, camera)[1], prediction.points_conf[0, 0, rows, columns].flatten()
        # One copy to the host, for which the device has to be waited for.
        packed = torch.cat([camera.cam_from_world.flatten(), *(x.double().flatten() for x in (points, depth, conf))])
        cam_from_world, points, depth, conf = packed.cpu().split([12, 3 * len(depth), len(depth), len(depth)])
        return cls(points.float().reshape(-1, 3), depth.float(), conf.float(), cam_from_world.reshape(3, 4).clone())

    @property
    def centre(self) -> Tensor:
        """Where the camera is. (3,)"""
        return invert_pose(self.cam_from_world)[:, 3]

    @property
    def is_finite(self) -> bool:
        """Whether there is a camera, and points if there should be any."""
        has_points = not len(self.depth) or bool(self.depth.isfinite().any() & self.conf.isfinite().any())
        return has_points and bool(self.cam_from_world.isfinite().all())

    @cached_property
    def typical_depth(self) -> float | None:
        """The median of its points' distances; None if there are none."""
        known = self.depth[self.depth.isfinite()]
        return known.median().item() if len(known) else None

    @cached_property
    def typical_confidence(self) -> float:
        """How far the median of its points' confidences is above the least, 1; 0 if there are none."""
        known = self.conf[self.conf.isfinite()]
        return known.median().item() - 1 if len(known) else 0.0

    @property
    def num_bytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def state(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def typical_size(sights: Iterable[Sight]) -> float:
    """Of what some frames see: the median of their typical depths; 1 if none is known."""
    depths = [sight.typical_depth for sight in sights]
    return statistics.median([depth for depth in depths if depth is not None] or [1.0])
