"""Flags of exports, shared by `streamvggt reconstruct` and `streamvggt export`."""

from __future__ import annotations

import argparse

from streamvggt.export import EXPORTERS, Adjustments, ExportOptions, KnownDistance
from streamvggt.extras import require
from streamvggt.flags import real, some_path, whole

FRAME_EXPORTS = ("depth", "video")
"""Formats that need depth, whatever the source of the points is."""

POINT_EXPORTS = {"glb", "ply", "colmap", "mesh", "nerfstudio", "rerun"}
"""Formats with points."""


def add_export_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the arguments that `export_options` reads."""
    group = parser.add_argument_group("exports")
    group.add_argument(
        "--formats",
        type=export_names,
        default=export_names(default),
        metavar="KINDS",
        help=f"formats: {','.join(EXPORTERS)}, or none (default: {default})",
    )
    group.add_argument(
        "--full-resolution",
        action="store_true",
        help="depth maps at the size of the original images, upsampled along the edges of the images",
    )
    group.add_argument(
        "--bundle-adjust",
        action="store_true",
        help="refine the cameras of the COLMAP export by bundle adjustment of SIFT tracks; worse cameras are rejected",
    )
    add_point_arguments(parser.add_argument_group("exported points"))
    add_adjustment_arguments(parser.add_argument_group("known cameras, scale and masks"))


def add_point_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--conf-percentile",
        type=real(0, 100),
        default=50.0,
        metavar="PERCENT",
        help="percentage of least confident points to remove (default: 50)",
    )
    group.add_argument(
        "--point-source",
        choices=("depth", "head"),
        default="depth",
        help="depth: unprojected depth; head: point head, requires --heads camera,depth,points (default: depth)",
    )
    group.add_argument(
        "--frames",
        type=frame_range,
        default=(None, None, None),
        metavar="START:STOP:STEP",
        help="slice of frame positions that contribute points (default: all)",
    )
    group.add_argument(
        "--max-points", type=whole(), default=1_000_000, metavar="N", help="maximum number of points (default: 1000000)"
    )
    group.add_argument("--drop-white", action="store_true", help="remove points of white background")
    group.add_argument("--drop-black", action="store_true", help="remove points of black background")
    group.add_argument("--drop-sky", action="store_true", help="remove points of detected sky")
    group.add_argument(
        "--no-edge-mask",
        dest="drop_edges",
        action="store_false",
        help="keep points at depth discontinuities, which float between objects",
    )


def add_adjustment_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--shared-intrinsics", action="store_true", help="one camera for all frames: the median of the predictions"
    )
    group.add_argument(
        "--intrinsics",
        type=numbers("fx,fy,cx,cy"),
        metavar="FX,FY,CX,CY",
        help="known camera of all frames in pixels of the original images (the center of the first pixel is 0,0)",
    )
    group.add_argument(
        "--fov",
        type=real(0, 180),
        metavar="DEGREES",
        help="known field of view of all frames over the longer side of the original images",
    )
    group.add_argument(
        "--scale", type=real(0, 1e12), default=1.0, metavar="FACTOR", help="factor on all lengths (default: 1)"
    )
    group.add_argument(
        "--known-distance",
        type=known_distance,
        metavar="X1,Y1,X2,Y2,METERS",
        help="metric scale from the distance of two pixels of the first original image",
    )
    group.add_argument(
        "--masks",
        type=some_path,
        metavar="FOLDER",
        help="gray images by frame name; pixels that are 0 are left out of all exports",
    )


def export_options(arguments: argparse.Namespace) -> ExportOptions:
    """Return the options of the flags.

    Raises:
        ValueError: If a value is out of range, or flags contradict each other.
    """
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
            known_distance=arguments.known_distance,
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


def export_names(text: str) -> list[str]:
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in EXPORTERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is unknown; choose of {','.join(EXPORTERS)}, or none")
    return list(dict.fromkeys(names))


def frame_range(text: str) -> tuple[int | None, int | None, int | None]:
    parts = text.split(":")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    if not 1 < len(numbers) <= 3:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of frames; write START:STOP or START:STOP:STEP")
    start, stop, step = [*numbers, None][:3]
    return start, stop, step


def numbers(names: str):
    """Return an argparse type for finite numbers separated by commas, as many as there are names."""
    parse_one = real(-1e9, 1e9)

    def parse(text: str) -> tuple[float, ...]:
        parts = text.split(",")
        if len(parts) != len(names.split(",")):
            raise argparse.ArgumentTypeError(f"expected {names}, got {text!r:.60}")
        return tuple(parse_one(part) for part in parts)

    return parse


def known_distance(text: str) -> KnownDistance:
    x1, y1, x2, y2, meters = numbers("x1,y1,x2,y2,meters")(text)
    try:
        return KnownDistance((x1, y1), (x2, y2), meters)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
