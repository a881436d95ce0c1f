"""Export GLB, PLY, COLMAP and other files from a result folder, without running the model.

streamvggt export RESULT --formats glb,colmap --conf-percentile 30 --frames 0:100:2
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from streamvggt.export import EXPORTERS, NothingLeft, PointFilter, ReconstructionResult, check_result
from streamvggt.extras import require
from streamvggt.flags import real, some_path, whole

POINT_EXPORTS = {"glb", "ply", "colmap"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("result", type=some_path, help="result folder of `streamvggt reconstruct`")
    parser.add_argument("--out", type=some_path, help="output folder (default: the result folder)")
    add_export_arguments(parser, default="glb,ply")


def add_export_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the arguments that select formats and points."""
    group = parser.add_argument_group("exports")
    group.add_argument(
        "--formats",
        type=export_names,
        default=export_names(default),
        metavar="KINDS",
        help=f"formats: {','.join(EXPORTERS)}, or none (default: {default})",
    )
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


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    result = ReconstructionResult(arguments.result)
    validate_exports(arguments, result[0].depth is not None, result[0].points is not None)
    check_frames(arguments, len(result))
    out = arguments.out or arguments.result
    validate_writable(out)
    problems = check_result(result)
    if problems:
        tqdm.write(f"!!! {len(problems)} of {len(result)} images cannot be used; the first: {problems[0]}")
    paths, failures = write_exports(result, out, arguments)
    for path in paths:
        tqdm.write(f"  {path}")
    print_failures(failures)
    return 1 if failures else 0


def write_exports(
    result: ReconstructionResult, folder: Path, arguments: argparse.Namespace
) -> tuple[list[Path], list[str]]:
    """Write the requested exports. Return the written paths, and a message for each export that failed."""
    chosen = point_filter(arguments)
    paths, failures = [], []
    for name in arguments.formats:
        try:
            paths.append(EXPORTERS[name](result, folder, chosen))
        except NothingLeft as error:
            paths += [error.path] if error.path else []
            failures.append(f"--formats {name}: {error}")
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            failures.append(f"--formats {name}: {str(error) or type(error).__name__}")
    return paths, failures


def print_failures(failures: list[str]) -> None:
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)


def point_filter(arguments: argparse.Namespace) -> PointFilter:
    return PointFilter(
        point_source=arguments.point_source,
        conf_percentile=arguments.conf_percentile,
        frames=arguments.frames,
        drop_white=arguments.drop_white,
        drop_black=arguments.drop_black,
        drop_sky=arguments.drop_sky,
        drop_edges=arguments.drop_edges,
        max_points=arguments.max_points,
    )


def validate_exports(arguments: argparse.Namespace, has_depth: bool, has_points: bool) -> None:
    """Reject, before the run, exports that the selected heads do not support."""
    point_filter(arguments)
    if "colmap" in arguments.formats:
        require("pycolmap", "export")
    needs_depth = [name for name in arguments.formats if name in ("depth", "video")]
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
    if needs_points and most is not None and not point_filter(arguments).selects_some(most):
        raise ValueError(f"--frames: none of the {most} frames is in the range {arguments.frames}; choose others")


def validate_writable(folder: Path) -> None:
    """Reject a folder that cannot be created or written to."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"--out {folder}: {there} is a file, a folder was expected")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {folder}: {there} may not be written to; choose another --out")


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
