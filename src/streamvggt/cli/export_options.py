"""Options of the flags of exports, and checks before a run."""

from __future__ import annotations

import argparse

from streamvggt.export import Adjustments, ExportOptions, KnownDistance
from streamvggt.extras import require

FRAME_EXPORTS = ("depth", "video")
"""Formats that need depth, whatever the source of the points is."""

POINT_EXPORTS = {"glb", "ply", "colmap", "mesh", "nerfstudio", "rerun"}
"""Formats with points."""


def export_options(arguments: argparse.Namespace) -> ExportOptions:
    """Return the options of the flags.

    Raises:
        ValueError: If a value is out of range, or flags contradict each other.
    """
    distance = arguments.known_distance
    return ExportOptions(
        point_source=arguments.point_source,
        conf_percentile=arguments.conf_percentile,
        frames=arguments.frames,
        drop_white=arguments.drop_white,
        drop_black=arguments.drop_black,
        drop_sky=arguments.drop_sky,
        drop_edges=arguments.drop_edges,
        max_points=arguments.max_points,
        full_resolution=arguments.full_resolution,
        bundle_adjust=arguments.bundle_adjust,
        adjustments=Adjustments(
            intrinsics=arguments.intrinsics,
            fov=arguments.fov,
            shared_intrinsics=arguments.shared_intrinsics,
            scale=arguments.scale,
            known_distance=distance and KnownDistance(distance[:2], distance[2:4], distance[4]),
            masks=arguments.masks,
        ),
    )


def validate_exports(arguments: argparse.Namespace, has_depth: bool, has_points: bool) -> None:
    """Reject, before the run, exports that the selected heads do not support, and options out of range.

    Raises:
        FileNotFoundError: If the folder of masks does not exist.
        ImportError: If the package of a format is not installed.
        ValueError: Otherwise.
    """
    options = export_options(arguments)
    if "colmap" in arguments.formats:
        require("pycolmap", "export")
    if "rerun" in arguments.formats:
        require("rerun", "rerun")
    masks = options.adjustments.masks
    if masks is not None and not masks.is_dir():
        raise FileNotFoundError(f"--masks: expected a folder, got {masks}")
    if options.adjustments.known_distance is not None and not has_depth:
        raise ValueError("--known-distance needs the depth head: add depth to --heads")
    for flag, name in (("bundle_adjust", "colmap"), ("full_resolution", "depth")):
        if getattr(arguments, flag) and name not in arguments.formats:
            raise ValueError(f"--{flag.replace('_', '-')} changes only --formats {name}: add {name} to --formats")
    needs_depth = [name for name in arguments.formats if name in FRAME_EXPORTS]
    needs_points = [name for name in arguments.formats if name in POINT_EXPORTS]
    if needs_depth and not has_depth:
        raise ValueError(f"--formats {','.join(needs_depth)} needs the depth head: add depth to --heads")
    if needs_points and arguments.point_source == "depth" and not has_depth:
        raise ValueError(
            f"--formats {','.join(needs_points)} takes points from depth: add depth to --heads, or use --point-source "
            f"head"
        )
    if needs_points and arguments.point_source == "head" and not has_points:
        raise ValueError("--point-source head needs the point head: add points to --heads")


def check_frames(arguments: argparse.Namespace, most: int | None) -> None:
    """Reject a frame range that is empty for every result of at most `most` frames."""
    needs_points = POINT_EXPORTS & set(arguments.formats)
    if needs_points and most is not None and not export_options(arguments).selects_some(most):
        raise ValueError(f"--frames: none of the {most} frames is in the range {arguments.frames}; choose others")
