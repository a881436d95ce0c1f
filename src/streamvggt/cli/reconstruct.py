"""Reconstruct cameras, depth maps and a point cloud from photos, a video or a camera, frame by frame.

streamvggt reconstruct clip.mp4 --out results/clip --weights lch01/StreamVGGT
streamvggt reconstruct drive.mp4 --out results/drive --weights lch01/StreamVGGT --submaps 60,15
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path
from typing import get_args

import psutil
import torch
from tqdm import tqdm

from streamvggt.cli.export import (
    add_export_arguments,
    check_frames,
    print_failures,
    validate_exports,
    validate_writable,
    write_exports,
)
from streamvggt.cli.inputs import check_inputs, write_inputs
from streamvggt.cli.run_metadata import RunMetadata
from streamvggt.export import (
    Corrections,
    DamagedResult,
    PointFilter,
    ReconstructionResult,
    ResultWriter,
    check_result,
    export_tum,
    frame_files,
    write_corrections,
)
from streamvggt.files import temporary_path
from streamvggt.flags import real, some_path, whole, word
from streamvggt.folder_lock import FolderLock
from streamvggt.model.checkpoints import MODEL_IDS, find_known
from streamvggt.model.device import DTYPES, resolve_device, resolve_dtype
from streamvggt.model.memory import KVCacheDtype
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import fingerprint, load_model
from streamvggt.stream.feed import predicted
from streamvggt.stream.frames import FrameSource, load_frames
from streamvggt.stream.policies.sliding_window import KeepAll
from streamvggt.stream.policies.trajectory import published_policy
from streamvggt.stream.policy import DEFAULT_POLICY, POLICY_USAGE, parse_policy
from streamvggt.stream.session import StreamSession
from streamvggt.stream.static_step import STEP_BUILDERS, validate_step_mode
from streamvggt.stream.submaps.loop_closure import parse_submaps
from streamvggt.stream.submaps.options import USAGE
from streamvggt.stream.submaps.session import SubmapSession, SubmapStatistics
from streamvggt.stream.video import URL
from streamvggt.words import counted

STATE_NAME = "stream_state.pt"
DEFAULTS = {"policy": DEFAULT_POLICY, "kv_cache_dtype": "auto", "dtype": "auto"}
LOW_MEMORY_PRESET = {"policy": "window:1,8", "kv_cache_dtype": "int8", "dtype": "half"}
TRAINED_LENGTH = 320
"""Maximum number of frames per training sequence of LingBot-Map."""
TRAINED_WINDOWS = "320,16"
Session = StreamSession | SubmapSession
SAVE_INTERVAL = 30.0  # minimum number of seconds between two saves of the stream's state
MAX_SAVE_TIME_RATIO = 0.05  # maximum ratio of run time for saves


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=word, help="image folder, glob pattern, video file, webcam number or URL")
    parser.add_argument("--out", type=some_path, required=True, help="output folder")
    parser.add_argument("--resume", action="store_true", help="resume an interrupted run in --out")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--weights",
        type=word,
        default="tiny",
        help=f"file, folder, Hugging Face id ({', '.join(MODEL_IDS)}; docs/checkpoints.md), or tiny, the bundled "
        "small model (default: tiny)",
    )
    network.add_argument(
        "--heads", default="camera,depth", help="heads to run: camera,depth,points (default: camera,depth)"
    )
    network.add_argument(
        "--policy",
        help=f"eviction policy: {POLICY_USAGE}; see docs/streaming.md (default: {DEFAULT_POLICY}; all with "
        "--submaps; LingBot-Map: its own)",
    )
    network.add_argument(
        "--kv-cache-dtype",
        choices=get_args(KVCacheDtype),
        help="number format of the KV cache; int8 halves its size (default: auto)",
    )
    network.add_argument(
        "--low-memory",
        action="store_true",
        help="preset for small GPUs: {policy} {kv_cache_dtype}, and half precision if the device "
        "supports it; other flags take precedence".format(
            policy=f"--policy {LOW_MEMORY_PRESET['policy']}",
            kv_cache_dtype=f"--kv-cache-dtype {LOW_MEMORY_PRESET['kv_cache_dtype']}",
        ),
    )
    network.add_argument(
        "--step-mode",
        choices=("eager", *STEP_BUILDERS),
        default="eager",
        help="execution once the memory is full; compile needs minutes for the first frame (default: eager)",
    )
    network.add_argument(
        "--submaps",
        metavar=USAGE,
        help="align overlapping submaps of LENGTH frames, each with a separate --policy (default: one stream; "
        f"LingBot-Map: {TRAINED_WINDOWS} for more than {TRAINED_LENGTH} frames)",
    )
    network.add_argument(
        "--loop-closure",
        action="store_true",
        help="detect loops and optimize submap poses (requires --submaps)",
    )
    network.add_argument(
        "--camera-cache",
        choices=("per_iteration", "shared"),
        default="per_iteration",
        help="camera-head cache, see docs/streaming.md",
    )
    network.add_argument("--device", default="auto", help="cuda, mps or cpu (default: fastest available device)")
    network.add_argument(
        "--dtype", choices=("auto", *DTYPES), help="computation dtype (default: bfloat16 on CUDA, else float32)"
    )
    network.add_argument("--attention", choices=("sdpa", "flash"), default="sdpa")
    frames = parser.add_argument_group("frames")
    frames.add_argument("--fps", type=real(1e-3, 1e3), help="frames per second of a video or camera (default: all)")
    frames.add_argument("--stride", type=whole(), default=1, help="take every n-th frame (default: 1)")
    frames.add_argument("--max-frames", type=whole(), help="maximum number of frames (default: all)")
    frames.add_argument(
        "--size", type=whole(1, 16_384), help="model input width in pixels (default: training resolution)"
    )
    frames.add_argument(
        "--resize-mode", choices=("crop", "pad"), default="crop", help="how to fit images to --size (default: crop)"
    )
    frames.add_argument("--strict", action="store_true", help="stop at unreadable frames instead of skipping them")
    add_export_arguments(parser, default="glb,ply,tum,depth,video")


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    validate_writable(arguments.out)
    with FolderLock(arguments.out) as lock:
        return reconstruct(arguments, argv, lock)


def reconstruct(arguments: argparse.Namespace, argv: list[str], lock: FolderLock) -> int:
    """Reconstruct into an output folder that is locked for this process. Return the exit status."""
    heads = tuple(dict.fromkeys(head.strip() for head in arguments.heads.split(",")))
    if "camera" not in heads or not set(heads) <= {"camera", "depth", "points"}:
        raise ValueError(f"--heads {arguments.heads}: camera and any of depth, points were expected")
    validate_exports(arguments, "depth" in heads, "points" in heads)
    check_camera_memory(arguments)
    is_default = arguments.policy is None and not arguments.low_memory
    apply_defaults(arguments)
    policy = parse_policy(arguments.policy)
    submaps, loop_closure = parse_submaps(arguments.submaps, arguments.loop_closure)
    device = resolve_device(arguments.device)
    dtype = resolve_dtype(arguments.dtype, device)
    if submaps is None:
        validate_step_mode(arguments.step_mode, policy, arguments.camera_cache, device)
    elif arguments.step_mode != "eager":
        raise ValueError("--submaps are computed with --step-mode eager alone")
    validate_output_dir(arguments.out, arguments.resume)
    validate_input(arguments)
    num_done = len(frame_files(arguments.out))

    model = load_model(
        arguments.weights, causal=True, heads=heads, device=device, dtype=dtype, attention=arguments.attention
    )
    if arguments.weights.startswith("random:"):
        tqdm.write(
            f"!!! {arguments.weights}: random weights. The run shows that everything works;\n"
            "!!! the cameras, depths and points it writes MEAN NOTHING. Give trained --weights (ckpt/README.md)."
        )
    frames = load_frames(
        arguments.input,
        size=model.config["image_size"] if arguments.size is None else arguments.size,
        patch_size=model.patch_size,
        mode=arguments.resize_mode,
        fps=arguments.fps,
        stride=arguments.stride,
        max_frames=arguments.max_frames,
        strict=arguments.strict,
    )
    if num_done and frames.kind == "live":
        raise ValueError(
            f"{arguments.input} is live and cannot be seen again: choose another --out for what comes now; "
            f"`streamvggt export {arguments.out}` makes files of the frames that are there"
        )
    if is_default and model.scale_frames:
        use_published_memory(arguments, model, frames)
        policy, (submaps, loop_closure) = (
            parse_policy(arguments.policy),
            parse_submaps(arguments.submaps, arguments.loop_closure),
        )
        if submaps is None:
            validate_step_mode(arguments.step_mode, policy, arguments.camera_cache, device)
    session = (
        StreamSession(
            model,
            policy=policy,
            camera_cache=arguments.camera_cache,
            kv_cache_dtype=arguments.kv_cache_dtype,
            step_mode=arguments.step_mode,
        )
        if submaps is None
        else SubmapSession(
            model,
            submaps=submaps,
            policy=policy,
            camera_cache=arguments.camera_cache,
            kv_cache_dtype=arguments.kv_cache_dtype,
            loop_closure=loop_closure,
        )
    )
    record = RunMetadata(
        arguments.out,
        command=["streamvggt", *argv],
        device=device,
        settings={
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
            "fps": arguments.fps,
            "stride": arguments.stride,
        },
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
            f"interrupted after {counted(done, 'frame')}, all kept in {arguments.out}; go on with the same command "
            "and --resume"
        )
        return 130
    kept = f"All frames are kept in {arguments.out}; `streamvggt export {arguments.out}` makes files of them"
    try:
        paths, failures = write_exports(ReconstructionResult(arguments.out), arguments.out, arguments)
        lock.check()
    except BaseException:
        tqdm.write(kept)
        raise
    record.finish([str(path.relative_to(arguments.out)) for path in paths], failures)
    print_summary(record, arguments.out)
    if failures:
        print_failures(failures)
        tqdm.write(kept)
    return 1 if failures else 0


def apply_defaults(arguments: argparse.Namespace) -> None:
    """Set missing arguments to their defaults, in place."""
    defaults = LOW_MEMORY_PRESET if arguments.low_memory else DEFAULTS
    if arguments.submaps is not None and not arguments.low_memory:
        defaults = {**DEFAULTS, "policy": "all"}  # submaps bound the memory
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def check_camera_memory(arguments: argparse.Namespace) -> None:
    """Reject, before the model is loaded, a camera cache that the reference streaming code does not have."""
    known = find_known(arguments.weights)
    if known is not None and known.exact_camera and arguments.camera_cache != "per_iteration":
        raise ValueError(
            f"--camera-cache {arguments.camera_cache}: expected per_iteration for {known.id}, whose camera head has "
            "one cache per iteration. Leave the flag out."
        )


def use_published_memory(arguments: argparse.Namespace, model: VGGT, frames: FrameSource) -> None:
    """Use the eviction policy of LingBot-Map, and submaps for streams longer than its training sequences."""
    policy = published_policy(model)
    arguments.policy = f"trajectory:{policy.anchor},{policy.recent}"
    is_long = frames.num_frames is None or frames.num_frames > TRAINED_LENGTH
    if arguments.submaps is None and arguments.step_mode == "eager" and is_long:
        arguments.submaps = TRAINED_WINDOWS
        tqdm.write(
            f"Using --submaps {TRAINED_WINDOWS}: this network was trained with up to {TRAINED_LENGTH} frames. "
            f"To keep one stream, give --policy {arguments.policy}."
        )


def validate_input(arguments: argparse.Namespace) -> None:
    """Reject, before the model is loaded, an input that does not exist or has no frames to take or export.

    Cameras are not opened.
    """
    most = arguments.max_frames
    if not (URL.match(arguments.input) or arguments.input.isdecimal()):
        frames = load_frames(
            arguments.input, fps=arguments.fps, stride=arguments.stride, max_frames=arguments.max_frames
        )
        if frames.kind == "images":  # the number is only an estimate for videos
            most = frames.num_frames
    check_frames(arguments, most)


def validate_output_dir(out: Path, resume: bool) -> None:
    """Reject, before the model is loaded, an output folder that the run would damage or cannot write to."""
    validate_writable(out)
    if frame_files(out):
        if not resume:
            raise FileExistsError(f"{out} already holds a result: go on with --resume, or choose another --out")
    elif not (out / "run.json").exists() and out.exists():
        others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        if others:
            raise FileExistsError(
                f"{out} holds other files ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}), which a result "
                "could overwrite: choose a new folder for --out"
            )


def run_stream(frames: FrameSource, session: Session, lock: FolderLock, record: RunMetadata, goes_on: bool) -> bool:
    """Push all frames and write the predictions. Return False if the run was interrupted before the end."""
    out = lock.folder
    state = StreamCheckpoint(out / STATE_NAME, session)
    if goes_on:
        writer, frames = resume_stream(frames, session, out, state)
    else:
        writer = ResultWriter(out)
        state.discard()
    if writer.num_frames == 0:
        warn_low_memory(session.model, session, frames)
    is_live = frames.kind == "live"
    status = "streamed"
    record.progress(writer.num_frames, frames.skipped, session.statistics)
    if not goes_on:
        write_inputs(out, frames.files)
    total = None if frames.num_frames is None else writer.num_frames + frames.num_frames
    with (
        InterruptHandler() as interrupted,
        tqdm(total=total, initial=writer.num_frames, desc="stream", unit="frame", dynamic_ncols=True) as bar,
    ):
        try:
            for frame, prediction in predicted(frames, session):
                lock.check()
                writer.add(frame, prediction)
                bar.set_postfix_str(f"memory {session.num_bytes / 1e6:,.0f} MB", refresh=False)
                bar.update()
                if interrupted:
                    status = "interrupted"
                    break
                record.progress(writer.num_frames, frames.skipped, session.statistics)
                if not is_live and state.should_save():
                    state.save(writer.num_frames)
        except KeyboardInterrupt:  # the second Ctrl-C
            status = "interrupted"
        except BaseException as error:
            if not lock.is_here:
                raise
            record.progress(writer.num_frames, frames.skipped, session.statistics, "failed", error)
            if not is_live:
                state.save(writer.num_frames)
            raise
    if is_live and writer.num_frames:
        status = "streamed"  # no other exit reaches this line
    if status == "streamed":
        apply_loop_corrections(session, out)
    record.progress(writer.num_frames, frames.skipped, session.statistics, status)
    if status == "interrupted":
        state.save(writer.num_frames)
        return False
    state.discard()
    print_skipped(record)
    log_submaps(session)
    return True


def resume_stream(
    frames: FrameSource, session: Session, out: Path, state: StreamCheckpoint
) -> tuple[ResultWriter, FrameSource]:
    """Return writer and frames that continue after the last saved state of a run, else at the beginning."""
    result = ReconstructionResult(out)
    try:
        done = state.restore(len(result))
    except (OSError, ValueError) as error:
        tqdm.write(f"!!! {error}: all frames are computed again ({counted(len(result), 'frame')})")
        session.reset()
        return ResultWriter(out, resume=0), frames
    frames = frames.from_index(result.camera(done - 1).index + 1)
    return ResultWriter(out, resume=done), frames


class StreamCheckpoint:
    """The stream's state on disk for --resume. The save interval keeps the cost low."""

    def __init__(self, path: Path, session: Session):
        self.path = path
        self.session = session
        self._saved, self._took = time.monotonic(), 0.0

    def should_save(self) -> bool:
        return time.monotonic() - self._saved > max(SAVE_INTERVAL, self._took / MAX_SAVE_TIME_RATIO)

    def save(self, num_written: int) -> None:
        """Save the state if it matches the written frames. A failed save is reported and does not stop the run."""
        if not num_written or self.session.num_frames != num_written:
            return  # a computed frame was not written, so keep the last save
        begun = time.monotonic()
        try:
            self.session.save(self.path)
        except (OSError, RuntimeError) as error:  # torch.save on a full disk raises RuntimeError
            tqdm.write(f"!!! the stream's state could not be saved ({error}): --resume goes on from an earlier one")
        self._saved = time.monotonic()
        self._took = self._saved - begun

    def restore(self, num_written: int) -> int:
        """Restore the session to the last saved state and return its number of frames.

        Raises:
            FileNotFoundError: If no state was saved.
            ValueError: If the state cannot be read, or earlier frames are missing.
        """
        self.session.restore(self.path)
        done = self.session.num_frames
        if done > num_written:
            raise ValueError(f"{self.path} goes on after {counted(done, 'frame')}, but {num_written} are there")
        return done

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        temporary_path(self.path).unlink(missing_ok=True)


class InterruptHandler:
    """Finish the current frame after Ctrl-C, SIGTERM or SIGHUP. A second signal stops immediately."""

    def __init__(self):
        self._asked = False
        self._before = {}
        self._terminals: list[int] = []

    def __enter__(self) -> InterruptHandler:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):  # nohup
                continue
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._asked

    def _ask(self, number: int, stack) -> None:
        if number == getattr(signal, "SIGHUP", None):
            self._leave_terminal()
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        tqdm.write("finishing this frame, then stopping (Ctrl-C again: at once)")

    def _leave_terminal(self) -> None:
        """Redirect the output after the terminal is closed, because writing to it raises an error."""
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            for number in self._terminals:
                os.dup2(nowhere.fileno(), number)


def warn_low_memory(model: VGGT, session: Session, frames: FrameSource) -> None:
    """Warn before the run if an unbounded memory for the clip exceeds the device memory."""
    if not isinstance(session.policy, KeepAll) or frames.num_frames is None:
        return
    num_frames = frames.num_frames
    if isinstance(session, SubmapSession):
        num_frames = min(num_frames, session.submaps.length + session.submaps.overlap)
    weight = next(model.parameters())
    width = model.config["embed_dim"]
    tokens = (frames.options.size // model.patch_size) ** 2  # of a square image, an upper bound for most inputs
    needed = num_frames * tokens * width * 2 * model.aggregator.depth * weight.element_size()
    free = torch.cuda.mem_get_info(weight.device)[0] if weight.is_cuda else psutil.virtual_memory().available
    if needed > free:
        tqdm.write(
            f"!!! keeping all {counted(num_frames, 'frame')} may need {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are "
            "free: "
            f"bound the memory with --policy {DEFAULT_POLICY}"
        )


def print_skipped(record: RunMetadata, most: int = 10) -> None:
    """Print names and reasons of skipped inputs."""
    skipped = record.content["frames"]["skipped"]
    for name, reason in skipped[:most]:
        tqdm.write(f"skipped {name}: {reason}")
    if len(skipped) > most:
        tqdm.write(f"skipped {len(skipped) - most} more: {record.path} lists them")


def apply_loop_corrections(session: Session, out: Path) -> None:
    """Write the loop corrections of earlier frames at the end of a stream."""
    if not isinstance(session, SubmapSession):
        return
    session.finish()
    corrections = session.corrections()
    if corrections:
        moves = [correction.first_frame for correction in corrections], [move.world for move in corrections]
        write_corrections(out, Corrections(*moves))
        export_tum(ReconstructionResult(out), out, PointFilter())


def log_submaps(session: Session) -> None:
    """Log accepted loops, restarts and alignments by pose."""
    said = session.statistics()
    if not isinstance(said, SubmapStatistics):
        return
    if said.num_loops:
        tqdm.write(f"{counted(said.num_loops, 'loop')} closed, and all frames moved accordingly")
    if said.num_restarts or said.num_pose_alignments:
        latest = f"; the latest at frame {said.restarts[-1].frame}: {said.restarts[-1].reason}" if said.restarts else ""
        tqdm.write(
            f"{counted(said.num_submaps, 'submap')}: {said.num_pose_alignments} aligned by pose only, "
            f"{said.num_restarts} restarted{latest}"
        )


def print_summary(record: RunMetadata, out: Path) -> None:
    """Print a summary of the run."""
    frames, timings = record.content["frames"], record.content["timings"]
    speed = f", {timings['median_ms']:.0f} ms per frame (median)" if timings.get("median_ms") else ""
    print(f"{counted(frames['done'], 'frame')}{speed}. In {out}:")
    for name in sorted({"frames", "images", "inputs.json", "run.json", "trajectory.txt", *record.content["exports"]}):
        print(f"  {name}/" if (out / name).is_dir() else f"  {name}")
