"""Measure milliseconds per frame and memory against the frame index, for every policy and for recomputing with VGGT.

    python benchmarks/streaming.py --size tiny --frames 2000 --out benchmarks/streaming-tiny-cpu

writes OUT.md (table, command, machine), OUT.png (curves) and OUT.json, one line per measurement. Weights can be random,
because speed and memory do not depend on their values.

Between the marks, the streams of all policies advance in one batch, and repeated images are encoded once. At a mark,
each frame of each stream is computed and timed alone, policy after policy, followed by the network on one frame without
memory. If the machine becomes slower, both do, and the ratio shows whether a stream slows down. At every mark, the
streams are saved. The same command continues from the last mark.
"""

import argparse
import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from environment_info import output_path
from roofline import Rates, Roofline, synchronize
from streaming_report import ALONE, HEADS, RECOMPUTE, report
from tqdm import tqdm

from streamvggt import StreamSession, load_model
from streamvggt.flags import whole
from streamvggt.model.batched_memory import BatchedMemory
from streamvggt.stream.policy import POLICIES, parse_policy

MEDIUM = {
    "image_size": 280,
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "encoder_depth": 12,
    "encoder_num_heads": 6,
    "dpt_layers": (2, 5, 8, 11),
    "dpt_features": 64,
    "dpt_channels": (48, 96, 192, 192),
}
# Weights, constructor arguments, height × width.
SIZES = {
    "tiny": ("tiny", {}, (80, 112)),
    "small": ("random:small", {}, (126, 224)),
    "medium": ("random:full", MEDIUM, (210, 280)),
    "full": ("random:full", {}, (392, 518)),
}
MARKS = (1, 10, 50, 100, 200, 500, 1000, 1500, 2000, 5000, 10000)
NEEDED = ("camera", "depth")  # required by policies and by the camera cache
NUM_IMAGES = 64  # repeated in this order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument(
        "--image-size", type=whole(1, 16_384), nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: size of the network"
    )
    parser.add_argument("--policy", nargs="+", default=list(POLICIES), help="policies (default: all)")
    parser.add_argument("--frames", type=whole(), default=2000)
    parser.add_argument("--keep-all-frames", type=whole(), default=200, help="last frame of `all` (default: 200)")
    parser.add_argument("--pushes", type=whole(), default=16, help="frames timed around each mark (default: 16)")
    parser.add_argument("--recompute-frames", type=whole(0), default=32, help="longest sequence to recompute with VGGT")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--attention", choices=("sdpa", "flash"), default="sdpa")
    parser.add_argument("--out", type=output_path, required=True)
    arguments = parser.parse_args()

    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    weights, config, image_size = SIZES[arguments.size]
    image_size = tuple(arguments.image_size or image_size)
    options = {"device": device, "dtype": dtype, "attention": arguments.attention, "heads": HEADS, **config}
    log = Log(arguments.out.with_suffix(".json"))
    rates = Rates.measured(device, dtype)
    marks = [mark for mark in MARKS if mark <= arguments.frames]
    model = load_model(weights, causal=True, **options).requires_grad_(False)
    measure_streams(model, image_size, marks, rates, arguments, log)
    del model
    gc.collect()
    model = load_model(weights, causal=False, **options)
    measure_recomputing(model, image_size, arguments.recompute_frames, log)
    report(log.lines, marks, rates, image_size, device, arguments)


class Log:
    """Measurements as lines of JSON, written immediately."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lines = (
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        )

    def add(self, **line) -> None:
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @property
    def last_mark(self) -> int:
        return max((line["mark"] for line in self.lines if line["name"] not in (ALONE, RECOMPUTE)), default=0)


def measure_streams(model, image_size, marks: Sequence[int], rates: Rates, arguments, log: Log) -> None:
    device = next(model.parameters()).device
    images = torch.rand(NUM_IMAGES, 3, *image_size, generator=torch.Generator().manual_seed(0)).to(device)
    floor = Roofline.of(model, images[:1, None], rates)
    sessions = {name: StreamSession(model, policy=parse_policy(name)) for name in arguments.policy}
    for session in sessions.values():  # first calls pick kernels and fill pools
        session.push(images[0])
        session.push(images[1])
        session.reset()
    states = arguments.out.with_suffix(".states")
    if log.last_mark:
        sessions = {name: session for name, session in sessions.items() if (states / f"{name}.pt").exists()}
        for name, session in sessions.items():
            session.restore(states / f"{name}.pt")
    with torch.no_grad():
        patch_tokens = torch.cat(
            [model.aggregator.encode_patches(image[None, None]) for image in images]
        )  # (64, 1, h·w, C)
    done = max((session.num_frames for session in sessions.values()), default=0)
    with tqdm(total=arguments.frames, initial=done, desc="all policies", unit="frame", dynamic_ncols=True) as bar:
        for mark in marks:
            if mark <= log.last_mark:
                continue
            if mark > arguments.keep_all_frames:
                sessions = {name: session for name, session in sessions.items() if session.policy.capacity}
            num_timed = min(arguments.pushes, mark)
            first = max(done + 1, mark - num_timed // 2)
            for frame in range(done + 1, first):
                shown = frame % NUM_IMAGES
                same = (images[shown, None, None], patch_tokens[shown, None])
                memories = BatchedMemory([session.memory for session in sessions.values()])
                together, known = (x.expand(len(sessions), *x.shape[1:]) for x in same)
                model.step(together, heads=NEEDED, memory=memories, patch_tokens=known)
                bar.update()
            timed = [images[frame % NUM_IMAGES] for frame in range(first, first + num_timed)]
            for line in time_alone(model, sessions, timed, floor):
                log.add(mark=mark, **line)
            done = first + num_timed - 1
            bar.update(num_timed)
            for name, session in sessions.items():
                session.save(states / f"{name}.pt")


def time_alone(model, sessions, frames: list[torch.Tensor], floor: Roofline) -> list[dict]:
    """Push frames into each session, one session after the other, and time each push.

    Returns:
        For each stream: wall and CPU milliseconds of each frame, the lower bound before the first of them, the mean
        number of cached tokens per layer, the cached frames and the bytes of the memory. Also wall and CPU milliseconds
        of the network without memory, with the bytes of the process (or of the device).
    """
    device = frames[0].device
    lines = {name: {"name": name, "ms": [], "cpu_ms": []} for name in [*sessions, ALONE]}

    def timed(name: str, call) -> None:
        synchronize(device)
        wall, processor = time.perf_counter(), time.process_time()
        call()
        synchronize(device)
        lines[name]["ms"].append((time.perf_counter() - wall) * 1000)
        lines[name]["cpu_ms"].append((time.process_time() - processor) * 1000)

    for name, session in sessions.items():
        memory = session.memory
        lines[name] |= {
            "floor_ms": floor.milliseconds(memory),
            "tokens": sum(memory.num_tokens) / len(memory.layers),
            "held": len(memory.kept_frames),
        }
    for frame in frames:
        for name, session in sessions.items():
            timed(name, lambda session=session, frame=frame: session.push(frame))
        with torch.no_grad():
            timed(ALONE, lambda frame=frame: model(frame[None, None]))
    for name, session in sessions.items():
        lines[name]["policy"] = session.num_bytes
    lines[ALONE]["process"] = process_bytes(device)
    return list(lines.values())


def measure_recomputing(model, image_size, longest: int, log: Log) -> None:
    """Time the bidirectional network on full sequences: the cost of a new frame if all frames are recomputed."""
    device = next(model.parameters()).device
    done = {line["mark"] for line in log.lines if line["name"] == RECOMPUTE}
    lengths = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= longest and n not in done]
    with torch.no_grad():
        model(torch.rand(1, 1, 3, *image_size, device=device))
        for length in tqdm(lengths, desc=RECOMPUTE, unit="sequence", dynamic_ncols=True):
            frames = torch.rand(1, length, 3, *image_size, device=device)
            synchronize(device)
            begun = time.perf_counter()
            model(frames)
            synchronize(device)
            ms = (time.perf_counter() - begun) * 1000
            log.add(name=RECOMPUTE, mark=length, ms=[ms], process=process_bytes(device))


def process_bytes(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


if __name__ == "__main__":
    main()
