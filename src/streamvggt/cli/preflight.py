"""Check input and output folder of a run before the model is loaded."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from streamvggt.cli.export import validate_writable
from streamvggt.cli.export_options import check_frames
from streamvggt.export import frame_files
from streamvggt.stream.frames import load_frames
from streamvggt.stream.video import URL


def default_output_dir(source: str) -> Path:
    """Return the folder in results/ with the name of the input: "results/clip" for "videos/clip.mp4"."""
    name = Path(source).stem if URL.match(source) or not Path(source).is_dir() else Path(source).resolve().name
    return Path("results") / (re.sub(r"[^\w.-]+", "_", name).strip("._") or "stream")


def validate_input(arguments: argparse.Namespace) -> None:
    """Reject, before the model is loaded, an input that does not exist or has no frames to take or export.

    Cameras are not opened.
    """
    most = arguments.max_frames
    if not (URL.match(arguments.input) or arguments.input.isdecimal()):
        try:
            frames = load_frames(
                arguments.input, fps=arguments.fps, stride=arguments.stride, max_frames=arguments.max_frames
            )
        except ValueError as error:
            if names_clips(Path(arguments.input)):
                raise ValueError(f"{error}. To reconstruct all clips, use --clips.") from error
            raise
        if frames.kind == "images":  # the number is only an estimate for videos
            most = frames.num_frames
    check_frames(arguments, most)


def names_clips(source: Path) -> bool:
    """Whether an input is a list of clips or a folder of clips, as for --clips."""
    from streamvggt.cli.batch import is_clip

    return source.suffix == ".txt" or (source.is_dir() and any(map(is_clip, source.iterdir())))


def validate_output_dir(out: Path, resume: bool) -> None:
    """Reject, before the model is loaded, an output folder that the run would damage or cannot write to."""
    validate_writable(out)
    if frame_files(out):
        if not resume:
            raise FileExistsError(f"{out} already contains a result: continue with --resume, or choose another --out")
    elif not (out / "run.json").exists() and out.exists():
        others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        if others:
            raise FileExistsError(
                f"{out} contains other files ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}), which a "
                "result could overwrite: choose a new folder for --out"
            )
