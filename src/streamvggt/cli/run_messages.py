"""Messages of a run on the terminal."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch
from tqdm import tqdm

from streamvggt.cli.memory_settings import Session
from streamvggt.cli.run_metadata import RunMetadata
from streamvggt.model.vggt import VGGT
from streamvggt.stream.frames import FrameSource
from streamvggt.stream.policies.sliding_window import KeepAll
from streamvggt.stream.policy import DEFAULT_POLICY
from streamvggt.stream.submaps.session import SubmapSession, SubmapStatistics
from streamvggt.stream.weights_note import weights_note
from streamvggt.words import counted


def warn_unfit_weights(weights: str, source: str) -> None:
    """Warn if the weights cannot reconstruct the input."""
    if note := weights_note(weights, source):
        tqdm.write(f"Warning: {note}")


def warn_low_memory(model: VGGT, session: Session, frames: FrameSource) -> None:
    """Warn before the run if an unbounded memory for the clip exceeds the device memory."""
    if not isinstance(session.policy, KeepAll) or frames.num_frames is None:
        return
    num_frames = frames.num_frames
    if isinstance(session, SubmapSession):
        num_frames = min(num_frames, session.submaps.length + session.submaps.overlap)
    weight = next(model.parameters())
    width = model.config.embed_dim
    tokens = (frames.options.size // model.patch_size) ** 2  # of a square image, an upper bound for most inputs
    needed = num_frames * tokens * width * 2 * model.aggregator.depth * weight.element_size()
    free = torch.cuda.mem_get_info(weight.device)[0] if weight.is_cuda else psutil.virtual_memory().available
    if needed > free:
        tqdm.write(
            f"Warning: keeping all {counted(num_frames, 'frame')} may need {needed / 1e9:.0f} GB, "
            f"{free / 1e9:.0f} GB are free. Bound the memory with --policy {DEFAULT_POLICY}."
        )


def print_skipped(record: RunMetadata, most: int = 10) -> None:
    """Print names and reasons of skipped inputs."""
    skipped = record.content["frames"]["skipped"]
    for name, reason in skipped[:most]:
        tqdm.write(f"skipped {name}: {reason}")
    if len(skipped) > most:
        tqdm.write(f"skipped {len(skipped) - most} more: {record.path} lists them")


def log_submaps(session: Session) -> None:
    """Log accepted loops, restarts and alignments by pose."""
    statistics = session.statistics()
    if not isinstance(statistics, SubmapStatistics):
        return
    if statistics.num_loops:
        tqdm.write(f"{counted(statistics.num_loops, 'loop')} closed, and all frames moved accordingly")
    if statistics.num_restarts or statistics.num_pose_alignments:
        latest = (
            f"; the latest at frame {statistics.restarts[-1].frame}: {statistics.restarts[-1].reason}"
            if statistics.restarts
            else ""
        )
        tqdm.write(
            f"{counted(statistics.num_submaps, 'submap')}: {statistics.num_pose_alignments} aligned by pose only, "
            f"{statistics.num_restarts} restarted{latest}"
        )


def print_summary(record: RunMetadata, out: Path, with_files: bool) -> None:
    """Print a summary of the run, with a list of the files or without."""
    frames, timings = record.content["frames"], record.content["timings"]
    speed = f", {timings['median_ms']:.0f} ms per frame (median)" if timings.get("median_ms") else ""
    print(f"{counted(frames['done'], 'frame')}{speed}." + (f" In {out}:" if with_files else ""))
    if not with_files:
        return
    for name in sorted({"frames", "images", "inputs.json", "run.json", "trajectory.txt", *record.content["exports"]}):
        print(f"  {name}/" if (out / name).is_dir() else f"  {name}")
