"""Reconstruct many clips, split over the processes of `accelerate launch`. One output folder per clip.

streamvggt reconstruct clips/ --clips --out results/clips
accelerate launch --num_processes 8 -m streamvggt reconstruct clips.txt --clips --out results/clips --resume
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from streamvggt.cli.run_metadata import check_record
from streamvggt.evaluation.processes import ProcessGroup
from streamvggt.export import frame_files
from streamvggt.files import atomic_write, read_text
from streamvggt.model.fingerprint import count_parameters
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import load_model
from streamvggt.natural_order import natural_key
from streamvggt.stream.image_list import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from streamvggt.words import counted

SUMMARY_NAME = "summary.json"
RunOne = Callable[[argparse.Namespace, list[str], Callable[..., VGGT]], int]


@dataclass(frozen=True)
class ClipReport:
    """Outcome of one clip.

    Args:
        status: "done", "failed", or "interrupted" (also for clips that were not reached).
        reason: Reason of a failure.
        num_frames: Number of frames in the result.
        seconds: Run time of all runs of this clip.
    """

    status: str
    reason: str | None = None
    num_frames: int = 0
    seconds: float = 0.0

    @property
    def frames_per_second(self) -> float:
        return self.num_frames / self.seconds if self.seconds else 0.0


class ModelFailed(Exception):
    """The model cannot be loaded, so that no clip can be reconstructed. The cause is the error to report."""


def run_clips(arguments: argparse.Namespace, argv: list[str], run_one: RunOne) -> int:
    """Reconstruct the clips of this process and print a summary of all processes.

    A clip that fails does not stop the others. The model is loaded once per process.

    Args:
        arguments: Arguments of `streamvggt reconstruct`. `input` names the clips, `out` the folder of all results.
        argv: Command line, for run.json.
        run_one: Reconstructs one clip with a function that loads the model. Returns the exit status.

    Returns:
        The exit status: 0 if all clips are done, 1 if a clip failed, 130 if the run was interrupted.

    Raises:
        FileExistsError: If a clip has a result and --resume is not given.
        FileNotFoundError: If there are no clips, or the weights do not exist.
        ValueError: If the list of clips is invalid.
    """
    clips = find_clips(Path(arguments.input).expanduser())
    count_parameters(arguments.weights)  # report missing weights once, before the first clip
    load = model_loader()
    with ProcessGroup() as processes:
        reports = {name: ClipReport("interrupted") for name in processes.shard(list(clips))}
        if not arguments.resume:
            require_new(arguments.out, reports)
        for number, name in enumerate(reports, 1):
            out = arguments.out / name
            tqdm.write(f"\n[{number}/{len(reports)}] {clips[name]} → {out}")
            one = argparse.Namespace(**{**vars(arguments), "input": str(clips[name]), "out": out})
            try:
                reports[name] = run_clip(one, argv, run_one, load)
            except KeyboardInterrupt:
                break
            except ModelFailed as error:
                raise error.__cause__ from None
            if reports[name].status == "interrupted":
                break
        reports = processes.gather(reports)
        if not processes.is_main:
            return 0
    reports = {name: reports[name] for name in clips}
    write_summary(arguments.out / SUMMARY_NAME, reports)
    print_summary(reports)
    counts = Counter(report.status for report in reports.values())
    return 1 if counts["failed"] else 130 if counts["interrupted"] else 0


def run_clip(arguments: argparse.Namespace, argv: list[str], run_one: RunOne, load: Callable[..., VGGT]) -> ClipReport:
    """Reconstruct one clip, unless --resume finds a finished result of the same command."""
    if arguments.resume and is_finished(arguments.out, argv):
        return read_report(arguments.out, "done")
    try:
        status = run_one(arguments, argv, load)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(f"error: {arguments.input}: {reason}", file=sys.stderr)
        return read_report(arguments.out, "failed", reason)
    if status == 1:
        return read_report(arguments.out, "failed", "an export failed")
    return read_report(arguments.out, "done" if status == 0 else "interrupted")


def require_new(out: Path, names: Iterable[str]) -> None:
    """Reject an output folder with results before the first clip, so that its summary stays.

    Raises:
        FileExistsError: If a clip has a result.
    """
    done = [name for name in names if frame_files(out / name)]
    if done:
        raise FileExistsError(
            f"--out: {out} already contains results of {counted(len(done), 'clip')}, the first is {done[0]}. Use "
            "--resume to continue, or choose another folder."
        )


def find_clips(source: Path) -> dict[str, Path]:
    """Find clips in natural order.

    Args:
        source: Folder of videos and of folders with images, or text file with one path per line, relative to the
            file. Empty lines and lines that start with # are ignored.

    Returns:
        Output name → path. A name is the path relative to the common folder, without the suffix if unique.

    Raises:
        FileNotFoundError: If `source` does not exist or names no clip.
        ValueError: If `source` is another file, or names a clip twice.
    """
    if not source.exists():
        raise FileNotFoundError(f"--clips: expected a folder or a .txt file, got {source}, which does not exist.")
    if source.is_dir():
        clips = sorted(filter(is_clip, source.iterdir()), key=lambda path: natural_key(path.name))
    elif source.suffix == ".txt":
        lines = [line.strip() for line in read_text(source).splitlines()]
        clips = [source.parent / Path(line).expanduser() for line in lines if line and not line.startswith("#")]
    else:
        raise ValueError(f"--clips: expected a folder or a .txt file with one path per line, got {source}.")
    if not clips:
        raise FileNotFoundError(f"--clips: expected videos or folders of images in {source}, got none.")
    paths = [Path(os.path.abspath(clip)) for clip in clips]
    twice = [str(path) for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise ValueError(f"--clips: expected each clip once, got {twice[0]} twice in {source}. Remove a line.")
    folder = os.path.commonpath([path.parent for path in paths])
    names = [Path(os.path.relpath(path, folder)) for path in paths]
    bare = [
        (name if path.is_dir() else name.with_suffix("")).as_posix() for name, path in zip(names, paths, strict=True)
    ]
    counts = Counter(bare)
    return {
        short if counts[short] == 1 else name.as_posix(): path
        for short, name, path in zip(bare, names, paths, strict=True)
    }


def is_clip(path: Path) -> bool:
    """Whether a path is a video, or a folder that contains an image."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return any(child.suffix.lower() in IMAGE_EXTENSIONS for child in path.iterdir())
    return path.suffix.lower() in VIDEO_EXTENSIONS


def model_loader() -> Callable[..., VGGT]:
    """Return `load_model` with a cache. Its errors become `ModelFailed`."""
    cached = cache(load_model)

    def load(*words, **options) -> VGGT:
        try:
            return cached(*words, **options)
        except (OSError, ValueError, ImportError, RuntimeError, MemoryError) as error:
            raise ModelFailed from error

    return load


def is_finished(out: Path, argv: list[str]) -> bool:
    """Whether a folder contains a finished result of the same command, apart from --resume."""
    record = read_record(out)
    command = [word for word in record.get("command", []) if word != "--resume"]
    return record.get("status") == "finished" and command == [
        "streamvggt",
        *(word for word in argv if word != "--resume"),
    ]


def read_report(out: Path, status: str, reason: str | None = None) -> ClipReport:
    """Return the report of a clip with the numbers of its run.json."""
    record = read_record(out)
    frames, timings = record.get("frames", {}), record.get("timings", {})
    return ClipReport(status, reason, frames.get("done", 0), timings.get("seconds", 0.0))


def read_record(out: Path) -> dict:
    """Read run.json of a clip. Empty if it is missing or damaged."""
    try:
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
        check_record(record)
    except (OSError, ValueError, RecursionError):
        return {}
    return record


def write_summary(path: Path, reports: Mapping[str, ClipReport]) -> None:
    """Write the reports of all clips as JSON: name → fields of `ClipReport` and "frames_per_second"."""
    content = {
        name: {**asdict(report), "frames_per_second": round(report.frames_per_second, 2)}
        for name, report in reports.items()
    }
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def print_summary(reports: Mapping[str, ClipReport]) -> None:
    """Print one line per clip and the totals, and failures also as errors."""
    width = max(map(len, reports))
    print(f"\n{'clip':{width}}  {'status':11} {'frames':>7} {'seconds':>8} {'frames/s':>8}  reason")
    for name, report in reports.items():
        numbers = f"{report.num_frames:7} {report.seconds:8.1f} {report.frames_per_second:8.2f}"
        print(f"{name:{width}}  {report.status:11} {numbers}  {report.reason or ''}".rstrip())
    counts = Counter(report.status for report in reports.values())
    print(f"{counted(len(reports), 'clip')}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
