"""Reconstruct cameras, depth maps and a point cloud from photos, a video or a camera, frame by frame.

streamvggt reconstruct clip.mp4 --out results/clip --weights lch01/StreamVGGT
streamvggt reconstruct drive.mp4 --out results/drive --weights lch01/StreamVGGT --submaps 60,15
streamvggt reconstruct clips/ --clips --out results/clips
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from tqdm import tqdm

from streamvggt.cli.export import print_failures, validate_writable, write_exports
from streamvggt.cli.export_options import validate_exports
from streamvggt.cli.inputs import check_inputs
from streamvggt.cli.memory_settings import (
    MemorySettings,
    apply_defaults,
    check_camera_memory,
    use_published_memory,
)
from streamvggt.cli.preflight import default_output_dir, validate_input, validate_output_dir
from streamvggt.cli.run_messages import print_summary, warn_unfit_weights
from streamvggt.cli.run_metadata import RunMetadata
from streamvggt.cli.stream_run import run_stream
from streamvggt.export import DamagedResult, ReconstructionResult, check_result, frame_files
from streamvggt.folder_lock import FolderLock
from streamvggt.model.device import resolve_device, resolve_dtype
from streamvggt.model.fingerprint import count_parameters, fingerprint
from streamvggt.model.heads import HEADS
from streamvggt.model.threads import set_threads
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import load_model
from streamvggt.stream.frames import FrameSource, load_frames
from streamvggt.stream.read_ahead import read_ahead
from streamvggt.words import counted


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    if arguments.out is None:
        arguments.out = default_output_dir(arguments.input)
    validate_writable(arguments.out)
    if arguments.clips:
        from streamvggt.cli.batch import run_clips

        return run_clips(arguments, argv, run_one)
    return run_one(arguments, argv, load_model)


def run_one(arguments: argparse.Namespace, argv: list[str], load: Callable[..., VGGT]) -> int:
    """Reconstruct one input with a model from `load`, a function like `load_model`. Return the exit status."""
    with FolderLock(arguments.out) as lock:
        return reconstruct(arguments, argv, lock, load)


def reconstruct(arguments: argparse.Namespace, argv: list[str], lock: FolderLock, load: Callable[..., VGGT]) -> int:
    """Reconstruct into an output folder that is locked for this process. Return the exit status."""
    heads = parse_heads(arguments.heads)
    validate_exports(arguments, "depth" in heads, "points" in heads)
    check_camera_memory(arguments)
    is_default = arguments.policy is None and not arguments.low_memory
    apply_defaults(arguments)
    device = resolve_device(arguments.device)
    dtype = resolve_dtype(arguments.dtype, device, partial(count_parameters, arguments.weights))
    memory = MemorySettings.parse(arguments, device)
    validate_output_dir(arguments.out, arguments.resume)
    validate_input(arguments)
    num_done = len(frame_files(arguments.out))

    model = load(arguments.weights, causal=True, heads=heads, device=device, dtype=dtype, attention=arguments.attention)
    set_threads(model.config.embed_dim)
    warn_unfit_weights(arguments.weights, arguments.input)
    frames = open_frames(arguments, model, num_done)
    if is_default and model.scale_frames:
        use_published_memory(arguments, model, frames)
        memory = MemorySettings.parse(arguments, device)
    session = memory.new_session(model, arguments)
    record = RunMetadata(
        arguments.out,
        command=["streamvggt", *argv],
        device=device,
        settings=result_settings(arguments, model, frames, heads, dtype),
        num_input=arguments.max_frames if frames.num_frames is None else frames.num_frames,
        num_done=num_done,
    )
    if num_done:
        check_inputs(arguments.out, frames.files)
    if record.has_ended and (problems := check_result(ReconstructionResult(arguments.out))):
        raise DamagedResult(
            f"{len(problems)} of {num_done} images cannot be used; the first: {problems[0]}. Put them back"
        )
    if not record.has_ended and not run_stream(frames, session, lock, record, num_done > 0):
        done = record.content["frames"]["done"]
        tqdm.write(
            f"interrupted after {counted(done, 'frame')}, all kept in {arguments.out}; continue with the same command "
            "and --resume"
        )
        return 130
    return export_result(arguments, lock, record)


def parse_heads(text: str) -> tuple[str, ...]:
    """Parse --heads.

    Raises:
        ValueError: If camera is missing or a head is unknown.
    """
    heads = tuple(dict.fromkeys(head.strip() for head in text.split(",")))
    possible = [head for head in HEADS if head not in ("camera", "track")]
    if "camera" not in heads or not set(heads) <= {"camera", *possible}:
        raise ValueError(f"--heads {text}: camera and any of {', '.join(sorted(possible))} were expected")
    return heads


def open_frames(arguments: argparse.Namespace, model: VGGT, num_done: int) -> FrameSource:
    """Open the input with the image size of the model.

    Raises:
        ValueError: If a live input has to continue after `num_done` frames.
    """
    frames = load_frames(
        arguments.input,
        size=model.config.image_size if arguments.size is None else arguments.size,
        patch_size=model.patch_size,
        mode=arguments.resize_mode,
        fast_resize=arguments.fast_resize,
        fps=arguments.fps,
        stride=arguments.stride,
        max_frames=arguments.max_frames,
        strict=arguments.strict,
    )
    if num_done and frames.kind == "live":
        raise ValueError(
            f"{arguments.input} is live, so a run cannot be resumed. Choose another --out, or export the existing "
            f"frames with `streamvggt export {arguments.out}`."
        )
    return frames


def result_settings(
    arguments: argparse.Namespace, model: VGGT, frames: FrameSource, heads: tuple[str, ...], dtype: torch.dtype
) -> dict:
    """Return the settings that determine the result. A resumed run must have equal settings."""
    return {
        **({} if frames.files else {"input": str(arguments.input)}),  # files are listed in inputs.json
        "weights": arguments.weights,
        "weights_fingerprint": fingerprint(model),
        "heads": list(heads),
        "policy": arguments.policy,
        "submaps": arguments.submaps,
        "loop_closure": arguments.loop_closure or None,
        "camera_cache": arguments.camera_cache,
        "kv_cache_dtype": arguments.kv_cache_dtype,
        "step_mode": arguments.step_mode,
        "dtype": str(dtype).removeprefix("torch."),
        "attention": arguments.attention,
        "size": frames.options.size,
        "resize_mode": arguments.resize_mode,
        "fast_resize": arguments.fast_resize or None,
        "fps": arguments.fps,
        "stride": arguments.stride,
    }


def export_result(arguments: argparse.Namespace, lock: FolderLock, record: RunMetadata) -> int:
    """Write the exports of a complete result. Return the exit status."""
    kept = f"All frames are kept in {arguments.out}; `streamvggt export {arguments.out}` makes files of them"
    try:
        result = ReconstructionResult(arguments.out, run_tasks=read_ahead)
        paths, failures = write_exports(result, arguments.out, arguments)
        lock.check()
    except BaseException:
        tqdm.write(kept)
        raise
    record.finish([str(path.relative_to(arguments.out)) for path in paths], failures)
    print_summary(record, arguments.out, with_files=not arguments.clips)
    if failures:
        print_failures(failures)
        tqdm.write(kept)
    return 1 if failures else 0
