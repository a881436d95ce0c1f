"""Detection of submaps whose predictions or alignments have collapsed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.similarity import so3_log
from streamvggt.stream.submaps.observation import FrameObservation
from streamvggt.stream.submaps.submap_alignment import SubmapAlignment


@dataclass(frozen=True)
class FailureDetector:
    """Bounds of a valid frame and a valid alignment. They are wide: they detect collapse, not noise.

    Attributes:
        min_inlier_ratio: Minimum inlier ratio of an alignment.
        max_residual: Maximum median point error of an alignment, as a fraction of depth.
        max_rotation_error_deg: Maximum angle between the two cameras of a common frame.
        max_scale_spread: Maximum ratio between the depth scales of the common frames.
        max_scale_ratio: Maximum scale between two submaps, in either direction.
        max_translation: Maximum camera motion per frame, in median depths. It must exceed `max_motion_ratio`, too.
        max_motion_ratio: Maximum ratio of a camera motion to the median motion of the frames before.
        max_rotation_deg: Maximum camera rotation per frame. It must exceed `max_motion_ratio`, too.
        min_conf_ratio: Minimum ratio of a frame's median confidence (minus 1) to that of the frames before.
        max_depth_ratio: Maximum ratio of a frame's median depth to that of the frames before, in either direction.
    """

    min_inlier_ratio: float = 0.2
    max_residual: float = 0.3
    max_rotation_error_deg: float = 30.0
    max_scale_spread: float = 2.0
    max_scale_ratio: float = 20.0
    max_translation: float = 1.0
    max_motion_ratio: float = 10.0
    max_rotation_deg: float = 60.0
    min_conf_ratio: float = 0.05
    max_depth_ratio: float = 5.0

    def check_alignment(self, alignment: SubmapAlignment) -> str | None:
        """Return why an alignment is invalid, or None if it is valid."""
        if alignment.method == "pose":
            return "no points to align"
        assert alignment.inlier_ratio is not None and alignment.residual is not None
        scale = alignment.old_from_new.scale.item()
        if alignment.inlier_ratio < self.min_inlier_ratio:
            return f"only {alignment.inlier_ratio:.0%} of the points agree"
        if alignment.residual > self.max_residual:
            return f"points differ by {alignment.residual:.0%} of their depth"
        if alignment.rotation_error_deg > self.max_rotation_error_deg:
            return f"cameras differ by {alignment.rotation_error_deg:.0f}°"
        if alignment.scale_spread > self.max_scale_spread:
            return f"scale drifts by a factor of {alignment.scale_spread:.1f} within the overlap"
        if not 1 / self.max_scale_ratio < scale < self.max_scale_ratio:
            return f"scale jumps by a factor of {scale:.3g}"
        return None

    def check_frame(self, observation: FrameObservation, previous: Sequence[FrameObservation]) -> str | None:
        """Return why a frame is invalid, or None if it is valid.

        Args:
            observation: The frame to check.
            previous: Latest valid frames of the same submap, oldest first.
        """
        if not observation.is_finite:
            return "not finite"
        if not previous:
            return None
        usual_conf = statistics.median(frame.median_confidence for frame in previous)
        if observation.median_confidence < self.min_conf_ratio * usual_conf:
            return f"confidence falls to {observation.median_confidence / usual_conf:.0%}"
        usual_depth = statistics.median(frame.median_depth or 0.0 for frame in previous)
        if observation.median_depth is None or usual_depth == 0:
            return None
        jump = observation.median_depth / usual_depth
        if not 1 / self.max_depth_ratio < jump < self.max_depth_ratio:
            return f"depth jumps by a factor of {jump:.3g}"
        return self._check_motion(observation, previous, usual_depth)

    def _check_motion(
        self, observation: FrameObservation, previous: Sequence[FrameObservation], usual_depth: float
    ) -> str | None:
        if len(previous) < 2:
            return None
        poses = torch.stack([frame.cam_from_world for frame in (*previous, observation)])
        translations = invert_pose(poses)[:, :, 3].diff(dim=0).norm(dim=-1)
        rotations = torch.rad2deg(so3_log(poses[1:, :, :3] @ poses[:-1, :, :3].mT).norm(dim=-1))
        translation, usual_translation = translations[-1].item(), translations[:-1].median().item()
        rotation, usual_rotation = rotations[-1].item(), rotations[:-1].median().item()
        too_far = translation > self.max_translation * usual_depth
        if too_far and translation > self.max_motion_ratio * usual_translation:
            return f"the camera jumps by {translation / usual_depth:.1f} times the depth"
        if rotation > self.max_rotation_deg and rotation > self.max_motion_ratio * usual_rotation:
            return f"the camera rotates by {rotation:.0f}° in one frame"
        return None
