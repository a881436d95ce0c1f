"""Refine the cameras of a result by bundle adjustment of SIFT tracks in its processed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from streamvggt.export.frame_file import FrameT
from streamvggt.export.options import ExportOptions
from streamvggt.export.result import ReconstructionResult
from streamvggt.geometry.camera import Cameras
from streamvggt.refinement.bundle_adjustment import BundleAdjustmentError, Refined, adjust
from streamvggt.refinement.sift import sift_tracks


@dataclass(frozen=True)
class CameraChange:
    """Replace the cameras of frames.

    Attributes:
        cameras: Camera-from-world pose (3, 4) and intrinsics of the processed image (3, 3), by frame name.
    """

    cameras: dict[str, tuple[np.ndarray, np.ndarray]]

    def __call__(self, frame: FrameT) -> FrameT:
        if frame.name not in self.cameras:
            return frame
        pose, K = self.cameras[frame.name]
        return replace(frame, cam_from_world=pose, intrinsics=K)


def refined(result: ReconstructionResult, options: ExportOptions) -> ReconstructionResult:
    """Return the result with refined cameras of the selected frames, or the same result with the reason printed.

    All frames get one focal length. Known or shared intrinsics are kept. The result is kept if there are too few
    tracks, if the median reprojection error grows, or if the solver fails.
    """
    positions = options.positions(result)
    try:
        changed = _refine(result, positions, keeps_intrinsics=options.adjustments.has_one_camera)
    except Exception as reason:  # no error of a solver or matcher may stop an export
        tqdm.write(f"--bundle-adjust: cameras are unchanged, because {str(reason) or type(reason).__name__}.")
        return result
    cameras = changed.cameras
    intrinsics = [result.camera(p).intrinsics for p in positions] if options.adjustments.has_one_camera else None
    tqdm.write(
        f"--bundle-adjust: median reprojection error {changed.start_error:.2f} → {changed.end_error:.2f} pixels of the "
        "processed images."
    )
    by_name = {
        result.camera(position).name: (
            cameras.cam_from_world[order].numpy(),
            cameras.intrinsics[order].numpy() if intrinsics is None else intrinsics[order],
        )
        for order, position in enumerate(positions)
    }
    return result.with_change(CameraChange(by_name))


def _refine(result: ReconstructionResult, positions: Sequence[int], keeps_intrinsics: bool) -> Refined:
    frames = [result.camera(position) for position in positions]
    sizes = {frame.original_size for frame in frames}
    if len(sizes) > 1:
        raise BundleAdjustmentError(f"the images have {len(sizes)} sizes, and one focal length is optimized")
    cameras = Cameras(
        torch.from_numpy(np.stack([frame.cam_from_world for frame in frames])),
        torch.from_numpy(np.stack([frame.intrinsics for frame in frames])),
    )
    depth: list[Tensor] = []

    def images():
        for _, frame in result.frames("tracks", positions):
            depth.append(torch.from_numpy(np.where(frame.valid_mask("depth"), frame.depth, np.nan)))
            yield torch.from_numpy(frame.image).permute(2, 0, 1) / 255

    tracks = sift_tracks(images(), cameras)
    size = tuple(depth[0].shape)
    return adjust(cameras, tracks, size, torch.stack(depth), refine_focal=not keeps_intrinsics)
