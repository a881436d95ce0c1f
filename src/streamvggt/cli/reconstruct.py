"""Turn photos, a video or a camera into cameras, depth maps and a point cloud, frame by frame.

streamvggt reconstruct clip.mp4 --out results/clip --weights lch01/StreamVGGT --memory window:1,8
"""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path

import psutil
import torch
from tqdm import tqdm

from streamvggt.cli.export import add_export_arguments, check_exports, write_exports
from streamvggt.cli.run_record import RunRecord
from streamvggt.export import Result, ResultWriter, finished_frames
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import fingerprint, load_model
from streamvggt.stream.frames import FrameSource, load_frames
from streamvggt.stream.policy import KeepAll, parse_policy
from streamvggt.stream.session import StreamSession

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STATE_NAME = "stream_state.pt"
SAVING_SHARE = 0.05  # of the time may go into saving the stream's state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="folder or pattern of photos, video file, webcam number, or address")
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in --out")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--weights",
        default="random:small",
        help="file, folder, Hugging Face id, or random:small, whose geometry means nothing (default)",
    )
    network.add_argument("--heads", default="camera,depth", help="of camera,depth,points (default: camera,depth)")
    network.add_argument("--memory", default="all", help="all, or window:ANCHOR,RECENT, which bounds it (default: all)")
    network.add_argument(
        "--camera-memory", choices=("exact", "released"), default="exact", help="see docs/streaming.md"
    )
    network.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the best there is)")
    network.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="default: bfloat16 on CUDA")
    network.add_argument("--attention", choices=("sdpa", "flash"), default="sdpa")
    frames = parser.add_argument_group("frames")
    frames.add_argument("--fps", type=float, help="frames per second to take from a video or camera")
    frames.add_argument("--stride", type=int, default=1, help="take every n-th frame")
    frames.add_argument("--max-frames", type=int, help="take no more than this")
    frames.add_argument("--size", type=int, help="width the network sees, in pixels (default: what it was made for)")
    frames.add_argument("--mode", choices=("crop", "pad"), default="crop", help="how to fit an image to --size")
    frames.add_argument("--strict", action="store_true", help="an unreadable frame is an error, not skipped")
    add_export_arguments(parser, default="glb,ply,tum,depth,video")


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    heads = tuple(head.strip() for head in arguments.heads.split(","))
    if "camera" not in heads or not set(heads) <= {"camera", "depth", "points"}:
        raise ValueError(f"--heads {arguments.heads}: camera and any of depth, points were expected")
    check_exports(arguments, "depth" in heads, "points" in heads)
    policy = parse_policy(arguments.memory)
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)
    if finished_frames(arguments.out) and not arguments.resume:
        raise ValueError(f"{arguments.out} already holds a result: go on with --resume, or choose another --out")

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
        size=arguments.size or model.config["image_size"],
        patch_size=model.patch_size,
        mode=arguments.mode,
        fps=arguments.fps,
        stride=arguments.stride,
        max_frames=arguments.max_frames,
        strict=arguments.strict,
    )
    session = StreamSession(model, policy=policy, camera=arguments.camera_memory)
    record = RunRecord(
        arguments.out,
        command=["streamvggt", *argv],
        device=device,
        settings={
            "input": str(arguments.input),
            "weights": arguments.weights,
            "weights_fingerprint": fingerprint(model),
            "heads": list(heads),
            "memory": repr(policy),
            "camera_memory": arguments.camera_memory,
            "dtype": str(dtype).removeprefix("torch."),
            "attention": arguments.attention,
            "size": frames.options.size,
            "mode": arguments.mode,
            "fps": arguments.fps,
            "stride": arguments.stride,
        },
        resume=arguments.resume,
    )

    is_whole = stream(frames, session, arguments.out, record, arguments.resume)
    if not is_whole:
        held = record.content["frames"]["done"]
        tqdm.write(
            f"interrupted after {held} frames, all kept in {arguments.out}; go on with the same command and --resume"
        )
        return 130
    paths = write_exports(Result(arguments.out), arguments.out, arguments)
    record.finish([str(path.relative_to(arguments.out)) for path in paths])
    tell(record, arguments.out)
    return 0


def stream(frames: FrameSource, session: StreamSession, out: Path, record: RunRecord, resume: bool) -> bool:
    """Push all frames and write what comes; False if it was interrupted before the end."""
    state = out / STATE_NAME
    writer, frames = go_on(frames, session, out, state) if resume else (ResultWriter(out), frames)
    if writer.num_frames == 0:
        warn_of_memory(session.model, session, frames)
    interrupted = Interrupts()
    saved_at, saving_took = time.monotonic(), 0.0
    total = None if frames.num_frames is None else writer.num_frames + frames.num_frames
    with (
        interrupted,
        tqdm(total=total, initial=writer.num_frames, desc="stream", unit="frame", dynamic_ncols=True) as bar,
    ):
        try:
            for frame in frames:
                writer.add(frame, session.push(frame))
                record.progress(writer.num_frames, frames.skipped, session.statistics)
                bar.set_postfix_str(f"memory {session.memory.num_bytes / 1e6:,.0f} MB", refresh=False)
                bar.update()
                if interrupted:
                    break
                now = time.monotonic()
                if now - saved_at > max(30.0, saving_took / SAVING_SHARE) and frames.kind != "live":
                    session.save(state)
                    saved_at, saving_took = time.monotonic(), time.monotonic() - now
        except BaseException:
            record.progress(writer.num_frames, frames.skipped, session.statistics, status="failed")
            keep_state(session, state, writer.num_frames)
            raise
    is_cut = bool(interrupted) and frames.kind != "live"  # a live stream has no other end
    record.progress(
        writer.num_frames, frames.skipped, session.statistics, status="interrupted" if is_cut else "streamed"
    )
    if is_cut:
        keep_state(session, state, writer.num_frames)
        return False
    state.unlink(missing_ok=True)
    for name, reason in record.content["frames"]["skipped"]:
        tqdm.write(f"skipped {name}: {reason}")
    return True


def go_on(frames: FrameSource, session: StreamSession, out: Path, state: Path) -> tuple[ResultWriter, FrameSource]:
    """Where an interrupted run can go on: after the frames of its last saved state, or at the end of its input."""
    finished = finished_frames(out)
    after = Result(out).camera(-1).index + 1 if finished else 0
    if finished and not state.exists() and frames.kind != "live" and frames.starting_at(after).num_frames == 0:
        return ResultWriter(out, resume=len(finished)), frames.starting_at(after)  # only exports are left to do
    if not state.exists():
        if finished:
            tqdm.write(f"{out} has no saved state of the stream: its {len(finished)} frames are computed again")
        return ResultWriter(out, resume=0), frames
    session.restore(state)
    done = session.statistics().frames_seen
    writer = ResultWriter(out, resume=done)
    return writer, frames.starting_at(Result(out).camera(done - 1).index + 1)


def keep_state(session: StreamSession, state: Path, num_written: int) -> None:
    """Save the state of an interrupted stream, if it is one that the written frames can go on from."""
    if session.memory.num_frames != num_written or not num_written:
        return  # a frame was computed but could not be written: the last regular save stays
    try:
        session.save(state)
    except OSError as error:
        tqdm.write(f"the stream's state could not be saved ({error}); --resume goes on from an earlier one")


class Interrupts:
    """Ctrl-C and termination finish the frame in work; a second Ctrl-C does not wait."""

    def __init__(self):
        self._asked = False
        self._before = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._asked

    def _ask(self, number: int, stack) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        tqdm.write("finishing this frame, then stopping (Ctrl-C again: at once)")


def choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name} is unknown; choose cuda, mps or cpu") from error
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if device.type not in there:
        raise ValueError(f"--device {name} is not served; choose cuda, mps or cpu")
    if not there[device.type]():
        raise ValueError(f"--device {name}: PyTorch {torch.__version__} sees no such device here; try --device cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def warn_of_memory(model: VGGT, session: StreamSession, frames: FrameSource) -> None:
    """Say beforehand if an unbounded memory will not hold the clip."""
    if not isinstance(session.policy, KeepAll) or frames.num_frames is None:
        return
    weight = next(model.parameters())
    width = model.config["embed_dim"]
    tokens = (frames.options.size // model.patch_size) ** 2  # of a square image; most have fewer
    needed = frames.num_frames * tokens * width * 2 * model.aggregator.depth * weight.element_size()
    free = torch.cuda.mem_get_info(weight.device)[0] if weight.is_cuda else psutil.virtual_memory().available
    if needed > free:
        tqdm.write(
            f"!!! keeping all {frames.num_frames} frames may need {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free: "
            "bound the memory with --memory window:1,8"
        )


def tell(record: RunRecord, out: Path) -> None:
    """What a run has made, in a few lines."""
    frames, timings = record.content["frames"], record.content["timings"]
    speed = f", {timings['median_ms']:.0f} ms per frame (median)" if timings.get("median_ms") else ""
    print(f"{frames['done']} frames{speed}. In {out}:")
    for name in sorted({"frames/", "images/", "run.json", "trajectory.txt", *record.content["exports"]}):
        print(f"  {name}")
