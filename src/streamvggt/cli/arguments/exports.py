"""Flags of exports, shared by `streamvggt reconstruct` and `streamvggt export`."""

from __future__ import annotations

import argparse
from typing import get_args

from streamvggt.choices import ExportFormat, PointSource
from streamvggt.flags import real, some_path, whole

FORMATS = get_args(ExportFormat)


def add_export_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the arguments that `export_options` reads."""
    group = parser.add_argument_group("exports")
    group.add_argument(
        "--formats",
        type=export_names,
        default=export_names(default),
        metavar="KINDS",
        help=f"formats: {','.join(FORMATS)}, or none (default: {default})",
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
        choices=get_args(PointSource),
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
    add_camera_arguments(group)
    group.add_argument(
        "--scale", type=real(0, 1e12), default=1.0, metavar="FACTOR", help="factor on all lengths (default: 1)"
    )
    group.add_argument(
        "--known-distance",
        type=numbers("x1,y1,x2,y2,meters"),
        metavar="X1,Y1,X2,Y2,METERS",
        help="metric scale from the distance of two pixels of the first original image",
    )
    group.add_argument(
        "--masks",
        type=some_path,
        metavar="FOLDER",
        help="gray images by frame name; pixels that are 0 are left out of all exports",
    )


def add_camera_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the flags of a known camera, also for `streamvggt view`."""
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


def export_names(text: str) -> list[str]:
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is unknown; choose from {','.join(FORMATS)}, or none")
    return list(dict.fromkeys(names))


def frame_range(text: str) -> tuple[int | None, int | None, int | None]:
    parts = text.split(":")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    if not 1 < len(numbers) <= 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of frames; write START:STOP or START:STOP:STEP")
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
