"""Export GLB, PLY, COLMAP and other files from a result folder, without running the model.

streamvggt export RESULT --formats glb,colmap --conf-percentile 30 --frames 0:100:2
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from streamvggt.cli.export_options import check_frames, export_options, validate_exports
from streamvggt.export import EXPORTERS, NothingLeft, ReconstructionResult, adjusted, check_result
from streamvggt.folder_lock import FolderLock
from streamvggt.model.threads import single_threaded_torch
from streamvggt.stream.read_ahead import read_ahead


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    result = ReconstructionResult(arguments.result, run_tasks=read_ahead)
    validate_exports(arguments, result[0].depth is not None, result[0].points is not None)
    check_frames(arguments, len(result))
    out = arguments.out or arguments.result
    validate_writable(out)
    problems = check_result(result)
    if problems:
        tqdm.write(f"Warning: {len(problems)} of {len(result)} images cannot be used; the first: {problems[0]}")
    with FolderLock(out):  # otherwise two processes replace the unfinished files of each other
        paths, failures = write_exports(result, out, arguments)
    for path in paths:
        tqdm.write(f"  {path}")
    print_failures(failures)
    return 1 if failures else 0


def write_exports(
    result: ReconstructionResult, folder: Path, arguments: argparse.Namespace
) -> tuple[list[Path], list[str]]:
    """Write the requested exports. Return the written paths, and a message for each failed export.

    Args:
        result: The result.
        folder: Output folder.
        arguments: Options of the command line.

    Raises:
        ValueError, OSError: As for `adjusted`.
    """
    options = export_options(arguments)
    result = adjusted(result, options.adjustments)
    paths, failures = [], []
    for name in arguments.formats:
        try:
            with single_threaded_torch():
                paths.append(EXPORTERS[name](result, folder, options))
        except NothingLeft as error:
            paths += [error.path] if error.path else []
            failures.append(f"--formats {name}: {error}")
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            failures.append(f"--formats {name}: {str(error) or type(error).__name__}")
    return paths, failures


def print_failures(failures: list[str]) -> None:
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)


def validate_writable(folder: Path) -> None:
    """Reject a folder that cannot be created or written to."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"--out {folder}: {there} is a file, a folder was expected")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {folder}: {there} may not be written to; choose another --out")
