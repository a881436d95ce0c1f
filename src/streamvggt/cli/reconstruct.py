"""Turn photos, a video or a camera into cameras, depth maps and a point cloud, frame by frame.

streamvggt reconstruct clip.mp4 --out results/clip --weights lch01/StreamVGGT
streamvggt reconstruct drive.mp4 --out results/drive --weights lch01/StreamVGGT --windows 60,15
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
    check_exports,
    check_frames,
    check_writable,
    tell_failures,
    write_exports,
)
from streamvggt.cli.inputs import check_inputs, write_inputs
from streamvggt.cli.run_record import RunRecord
from streamvggt.export import (
    Corrections,
    DamagedResult,
    PointFilter,
    Result,
    ResultWriter,
    check_result,
    export_tum,
    finished_frames,
    write_corrections,
)
from streamvggt.files import unfinished
from streamvggt.flags import real, some_path, whole, word
from streamvggt.folder_lock import FolderLock
from streamvggt.model.device import DTYPES, choose_device, choose_dtype
from streamvggt.model.memory import StorageName
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import fingerprint, load_model
from streamvggt.stream.frames import FrameSource, load_frames
from streamvggt.stream.policies.window import KeepAll
from streamvggt.stream.policy import DEFAULT_MEMORY, MEMORIES, parse_policy
from streamvggt.stream.session import StreamSession
from streamvggt.stream.steady import PREPARE, check_step
from streamvggt.stream.submaps.loop_closure import parse_submaps
from streamvggt.stream.submaps.options import USAGE
from streamvggt.stream.submaps.session import SubmapSession, SubmapStatistics
from streamvggt.stream.video import URL
from streamvggt.words import counted

STATE_NAME = "stream_state.pt"
DEFAULTS = {"memory": DEFAULT_MEMORY, "storage": "plain", "dtype": "auto"}
LOW_MEMORY = {"memory": "window:1,8", "storage": "int8", "dtype": "half"}
Session = StreamSession | SubmapSession
SAVE_EVERY = 30.0  # seconds, at least, between two saves of the stream's state
SAVING_SHARE = 0.05  # of the time may go into them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=word, help="folder or pattern of photos, video file, webcam number, or address")
    parser.add_argument("--out", type=some_path, required=True, help="folder for the result")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in --out")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--weights",
        type=word,
        default="tiny",
        help="file, folder, Hugging Face id, or tiny, the small network that comes with the project (default)",
    )
    network.add_argument("--heads", default="camera,depth", help="of camera,depth,points (default: camera,depth)")
    network.add_argument(
        "--memory",
        help=f"which frames stay: {MEMORIES}; see docs/streaming.md (default: {DEFAULT_MEMORY}; with --windows: all)",
    )
    network.add_argument(
        "--storage", choices=get_args(StorageName), help="of the memory: int8 takes half (default: plain)"
    )
    network.add_argument(
        "--low-memory",
        action="store_true",
        help=f"--memory {LOW_MEMORY['memory']} --storage {LOW_MEMORY['storage']} and half precision where the device "
        "computes in it; what is given otherwise stays",
    )
    network.add_argument(
        "--step",
        choices=("eager", *PREPARE),
        default="eager",
        help="once the memory is full: graph (CUDA) or compiled, which takes minutes at first (default: eager)",
    )
    network.add_argument(
        "--windows",
        metavar=USAGE,
        help="stitch overlapping windows of that many frames, each with a --memory of its own (default: one stream)",
    )
    network.add_argument(
        "--loops",
        action="store_true",
        help="with --windows: where the camera comes back to a place, correct all windows by it",
    )
    network.add_argument(
        "--camera-memory", choices=("exact", "released"), default="exact", help="see docs/streaming.md"
    )
    network.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the best there is)")
    network.add_argument("--dtype", choices=("auto", *DTYPES), help="default: bfloat16 on CUDA, else float32")
    network.add_argument("--attention", choices=("sdpa", "flash"), default="sdpa")
    frames = parser.add_argument_group("frames")
    frames.add_argument("--fps", type=real(1e-3, 1e3), help="frames per second to take from a video or camera")
    frames.add_argument("--stride", type=whole(), default=1, help="take every n-th frame")
    frames.add_argument("--max-frames", type=whole(), help="take no more than this")
    frames.add_argument(
        "--size", type=whole(1, 16_384), help="width the network sees, in pixels (default: what it was made for)"
    )
    frames.add_argument("--mode", choices=("crop", "pad"), default="crop", help="how to fit an image to --size")
    frames.add_argument("--strict", action="store_true", help="an unreadable frame is an error, not skipped")
    add_export_arguments(parser, default="glb,ply,tum,depth,video")


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    check_writable(arguments.out)
    with FolderLock(arguments.out) as lock:
        return reconstruct(arguments, argv, lock)


def reconstruct(arguments: argparse.Namespace, argv: list[str], lock: FolderLock) -> int:
    """Run with an output folder that nobody else writes to; the exit status."""
    heads = tuple(dict.fromkeys(head.strip() for head in arguments.heads.split(",")))
    if "camera" not in heads or not set(heads) <= {"camera", "depth", "points"}:
        raise ValueError(f"--heads {arguments.heads}: camera and any of depth, points were expected")
    check_exports(arguments, "depth" in heads, "points" in heads)
    fill_in(arguments)
    policy = parse_policy(arguments.memory)
    windows, loops = parse_submaps(arguments.windows, arguments.loops)
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)
    if windows is None:
        check_step(arguments.step, policy, arguments.camera_memory, device)
    elif arguments.step != "eager":
        raise ValueError("--windows are computed with --step eager alone")
    check_out(arguments.out, arguments.resume)
    check_input(arguments)
    num_done = len(finished_frames(arguments.out))

    model = load_model(
        arguments.weights, sees="past", heads=heads, device=device, dtype=dtype, attention=arguments.attention
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
        mode=arguments.mode,
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
    session = (
        StreamSession(
            model, policy=policy, camera=arguments.camera_memory, storage=arguments.storage, step=arguments.step
        )
        if windows is None
        else SubmapSession(
            model,
            submaps=windows,
            policy=policy,
            camera_cache=arguments.camera_memory,
            kv_cache_dtype=arguments.storage,
            loop_closure=loops,
        )
    )
    record = RunRecord(
        arguments.out,
        command=["streamvggt", *argv],
        device=device,
        settings={
            **({} if frames.files else {"input": str(arguments.input)}),  # files have a list
            "weights": arguments.weights,
            "weights_fingerprint": fingerprint(model),
            "heads": list(heads),
            "memory": arguments.memory,
            "windows": arguments.windows,
            "loops": arguments.loops or None,
            "camera_memory": arguments.camera_memory,
            "storage": arguments.storage,
            "step": arguments.step,
            "dtype": str(dtype).removeprefix("torch."),
            "attention": arguments.attention,
            "size": frames.options.size,
            "mode": arguments.mode,
            "fps": arguments.fps,
            "stride": arguments.stride,
        },
        num_input=arguments.max_frames if frames.num_frames is None else frames.num_frames,
        num_done=num_done,
    )
    if num_done:
        check_inputs(arguments.out, frames.files)
    if record.has_ended and (problems := check_result(Result(arguments.out))):
        raise DamagedResult(
            f"{len(problems)} of {num_done} images cannot be used; the first: {problems[0]}. Put them back"
        )
    if not record.has_ended and not stream(frames, session, lock, record, num_done > 0):
        done = record.content["frames"]["done"]
        tqdm.write(
            f"interrupted after {counted(done, 'frame')}, all kept in {arguments.out}; go on with the same command "
            "and --resume"
        )
        return 130
    kept = f"All frames are kept in {arguments.out}; `streamvggt export {arguments.out}` makes files of them"
    try:
        paths, failures = write_exports(Result(arguments.out), arguments.out, arguments)
        lock.check()
    except BaseException:
        tqdm.write(kept)
        raise
    record.finish([str(path.relative_to(arguments.out)) for path in paths], failures)
    tell(record, arguments.out)
    if failures:
        tell_failures(failures)
        tqdm.write(kept)
    return 1 if failures else 0


def fill_in(arguments: argparse.Namespace) -> None:
    """What was not given, in place."""
    defaults = LOW_MEMORY if arguments.low_memory else DEFAULTS
    if arguments.windows is not None and not arguments.low_memory:
        defaults = {**DEFAULTS, "memory": "all"}  # a window is bounded by itself
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def check_input(arguments: argparse.Namespace) -> None:
    """Refuse, before the network is loaded, an input that is not there or has no frames to take or to export.

    Cameras are not touched.
    """
    most = arguments.max_frames
    if not (URL.match(arguments.input) or arguments.input.isdecimal()):
        frames = load_frames(
            arguments.input, fps=arguments.fps, stride=arguments.stride, max_frames=arguments.max_frames
        )
        if frames.kind == "images":  # of videos the number is an estimate
            most = frames.num_frames
    check_frames(arguments, most)


def check_out(out: Path, resume: bool) -> None:
    """Refuse, before the network is loaded, a folder that the run would damage or could not write to."""
    check_writable(out)
    if finished_frames(out):
        if not resume:
            raise FileExistsError(f"{out} already holds a result: go on with --resume, or choose another --out")
    elif not (out / "run.json").exists() and out.exists():
        others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        if others:
            raise FileExistsError(
                f"{out} holds other files ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}), which a result "
                "could overwrite: choose a new folder for --out"
            )


def stream(frames: FrameSource, session: Session, lock: FolderLock, record: RunRecord, goes_on: bool) -> bool:
    """Push all frames and write what comes; False if it was interrupted before the end."""
    out = lock.folder
    state = SavedState(out / STATE_NAME, session)
    if goes_on:
        writer, frames = go_on(frames, session, out, state)
    else:
        writer = ResultWriter(out)
        state.discard()
    if writer.num_frames == 0:
        warn_of_memory(session.model, session, frames)
    is_live = frames.kind == "live"
    status = "streamed"
    record.progress(writer.num_frames, frames.skipped, session.statistics)
    if not goes_on:
        write_inputs(out, frames.files)
    total = None if frames.num_frames is None else writer.num_frames + frames.num_frames
    with (
        Interrupts() as interrupted,
        tqdm(total=total, initial=writer.num_frames, desc="stream", unit="frame", dynamic_ncols=True) as bar,
    ):
        try:
            for frame in frames:
                prediction = session.push(frame)
                lock.check()
                writer.add(frame, prediction)
                bar.set_postfix_str(f"memory {session.num_bytes / 1e6:,.0f} MB", refresh=False)
                bar.update()
                if interrupted:
                    status = "interrupted"
                    break
                record.progress(writer.num_frames, frames.skipped, session.statistics)
                if not is_live and state.is_due():
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
        status = "streamed"  # there is no other end
    if status == "streamed":
        correct(session, out)
    record.progress(writer.num_frames, frames.skipped, session.statistics, status)
    if status == "interrupted":
        state.save(writer.num_frames)
        return False
    state.discard()
    tell_skipped(record)
    log_submaps(session)
    return True


def go_on(frames: FrameSource, session: Session, out: Path, state: SavedState) -> tuple[ResultWriter, FrameSource]:
    """Where an interrupted run goes on: after the frames of its last saved state, else at the beginning."""
    result = Result(out)
    try:
        done = state.restore(len(result))
    except (OSError, ValueError) as error:
        tqdm.write(f"!!! {error}: all frames are computed again ({counted(len(result), 'frame')})")
        session.reset()
        return ResultWriter(out, resume=0), frames
    frames = frames.starting_at(result.camera(done - 1).index + 1)
    return ResultWriter(out, resume=done), frames


class SavedState:
    """The stream's state on disk, from which --resume goes on; saved so seldom that it costs little."""

    def __init__(self, path: Path, session: Session):
        self.path = path
        self.session = session
        self._saved, self._took = time.monotonic(), 0.0

    def is_due(self) -> bool:
        return time.monotonic() - self._saved > max(SAVE_EVERY, self._took / SAVING_SHARE)

    def save(self, num_written: int) -> None:
        """Save it, if the frames written are those it goes on from; not being able to is said but stops nothing."""
        if not num_written or self.session.num_frames != num_written:
            return  # a frame was computed but could not be written: the last save stays
        begun = time.monotonic()
        try:
            self.session.save(self.path)
        except (OSError, RuntimeError) as error:  # torch.save on a full disk raises RuntimeError
            tqdm.write(f"!!! the stream's state could not be saved ({error}): --resume goes on from an earlier one")
        self._saved = time.monotonic()
        self._took = self._saved - begun

    def restore(self, num_written: int) -> int:
        """Bring the session to where it was saved; the number of frames until then.

        Raises:
            FileNotFoundError: no state was saved.
            ValueError: it cannot be read, or frames before it are missing.
        """
        self.session.restore(self.path)
        done = self.session.num_frames
        if done > num_written:
            raise ValueError(f"{self.path} goes on after {counted(done, 'frame')}, but {num_written} are there")
        return done

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        unfinished(self.path).unlink(missing_ok=True)


class Interrupts:
    """Ctrl-C, termination and the end of the terminal finish the frame in work; a second one does not wait."""

    def __init__(self):
        self._asked = False
        self._before = {}
        self._terminals: list[int] = []

    def __enter__(self) -> Interrupts:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # there is no SIGHUP on Windows
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
        """It is gone: writing to it would be an error."""
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            for number in self._terminals:
                os.dup2(nowhere.fileno(), number)


def warn_of_memory(model: VGGT, session: Session, frames: FrameSource) -> None:
    """Say beforehand if an unbounded memory will not hold the clip."""
    if not isinstance(session.policy, KeepAll) or frames.num_frames is None:
        return
    num_frames = frames.num_frames
    if isinstance(session, SubmapSession):
        num_frames = min(num_frames, session.submaps.length + session.submaps.overlap)
    weight = next(model.parameters())
    width = model.config["embed_dim"]
    tokens = (frames.options.size // model.patch_size) ** 2  # of a square image; most have fewer
    needed = num_frames * tokens * width * 2 * model.aggregator.depth * weight.element_size()
    free = torch.cuda.mem_get_info(weight.device)[0] if weight.is_cuda else psutil.virtual_memory().available
    if needed > free:
        tqdm.write(
            f"!!! keeping all {counted(num_frames, 'frame')} may need {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are "
            "free: "
            f"bound the memory with --memory {DEFAULT_MEMORY}"
        )


def tell_skipped(record: RunRecord, most: int = 10) -> None:
    """What could not be read, and why."""
    skipped = record.content["frames"]["skipped"]
    for name, reason in skipped[:most]:
        tqdm.write(f"skipped {name}: {reason}")
    if len(skipped) > most:
        tqdm.write(f"skipped {len(skipped) - most} more: {record.path} lists them")


def correct(session: Session, out: Path) -> None:
    """At the end of a stream, bring the frames that were written before a loop was closed to where they belong."""
    if not isinstance(session, SubmapSession):
        return
    session.finish()
    corrections = session.corrections()
    if corrections:
        moves = [correction.first_frame for correction in corrections], [move.world for move in corrections]
        write_corrections(out, Corrections(*moves))
        export_tum(Result(out), out, PointFilter())


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


def tell(record: RunRecord, out: Path) -> None:
    """What a run has made, in a few lines."""
    frames, timings = record.content["frames"], record.content["timings"]
    speed = f", {timings['median_ms']:.0f} ms per frame (median)" if timings.get("median_ms") else ""
    print(f"{counted(frames['done'], 'frame')}{speed}. In {out}:")
    for name in sorted({"frames", "images", "inputs.json", "run.json", "trajectory.txt", *record.content["exports"]}):
        print(f"  {name}/" if (out / name).is_dir() else f"  {name}")
