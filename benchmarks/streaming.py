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

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch
from environment_info import publish
from roofline import Rates, Roofline, synchronize
from tqdm import tqdm

from streamvggt import StreamSession, load_model
from streamvggt.model.batched_memory import BatchedMemory
from streamvggt.provenance import describe_machine
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
RECOMPUTE = "VGGT again"
ALONE = "one frame without memory"
HEADS = ("camera", "depth")
NEEDED = ("camera", "depth")  # required by policies and by the camera cache
NUM_IMAGES = 64  # repeated in this order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: size of the network"
    )
    parser.add_argument("--policy", nargs="+", default=list(POLICIES), help="policies (default: all)")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--keep-all-frames", type=int, default=200, help="last frame of `all` (default: 200)")
    parser.add_argument("--pushes", type=int, default=16, help="frames timed around each mark (default: 16)")
    parser.add_argument("--recompute-frames", type=int, default=32, help="longest sequence to recompute with VGGT")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--attention", choices=("sdpa", "flash"), default="sdpa")
    parser.add_argument("--out", type=Path, required=True)
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


def report(lines: list[dict], marks: list[int], rates: Rates, image_size, device, arguments) -> None:
    by = {(line["name"], line["mark"]): line for line in lines}
    names = list(dict.fromkeys(line["name"] for line in lines if line["name"] not in (ALONE, RECOMPUTE)))

    def table(names: Sequence[str], say) -> list[str]:
        rows = [
            f"| `{name}` | " + " | ".join(say(by[name, mark]) if (name, mark) in by else "" for mark in marks) + " |"
            for name in names
        ]
        header = "| | " + " | ".join(f"frame {mark:,}" for mark in marks) + " |"
        return [header, "|---" * (len(marks) + 1) + "|", *rows, ""]

    again = {mark: line["ms"][0] for (name, mark), line in by.items() if name == RECOMPUTE}
    processes = ", ".join(f"{by[ALONE, mark]['process'] / 1e6:,.0f} at frame {mark:,}" for mark in marks)
    text = [
        f"# Streaming: {arguments.size} network, {image_size[1]}×{image_size[0]}, {arguments.dtype}",
        "",
        f"Heads {', '.join(HEADS)}. Milliseconds per frame, median / 95th percentile of {arguments.pushes} frames "
        "around each mark (fewer at the first), each stream computed alone:",
        "",
        *table([*names, ALONE], lambda line: f"{np.median(line['ms']):.3g} / {np.percentile(line['ms'], 95):.3g}"),
        f"The floor in milliseconds: the longer of FLOPs at {rates.flops / 1e9:.0f} GFLOP/s (a large matrix product) "
        f"and bytes, weights and memory once, at {rates.bytes / 1e9:.1f} GB/s (a large copy), measured in this run:",
        "",
        *table(names, lambda line: f"{line['floor_ms']:.3g}"),
        "Memory of the stream in MB with free slots, and in parentheses the mean number of cached tokens per layer:",
        "",
        *table(names, lambda line: f"{line['policy'] / 1e6:.3g} ({line['tokens']:.0f})"),
        f"The {'device' if device.type == 'cuda' else 'process'}, all streams together, in MB: {processes}.",
        "",
        *flatness(by, names, marks, device),
    ]
    if again:
        text += [
            f"{RECOMPUTE}: ms to compute a whole sequence, which is the cost of each new frame without a memory:",
            "",
            "| " + " | ".join(f"{length} frames" for length in again) + " |",
            "|---" * len(again) + "|",
            "| " + " | ".join(f"{ms:.3g}" for ms in again.values()) + " |",
            "",
        ]
    draw(by, names, again, image_size, device, arguments)
    text.append(f"![curves]({arguments.out.name}.png)")
    publish(text, arguments.out.with_suffix(".md"), device)


def flatness(by: dict, names: list[str], marks: list[int], device: torch.device) -> list[str]:
    """Return the variation of time and memory of each bounded stream once the memory is full (from frame 50)."""
    clock = "ms" if device.type == "cuda" else "cpu_ms"
    rows = []
    for name in names:
        policy = parse_policy(name)
        last = by.get((name, marks[-1]))
        if policy.capacity is None or last is None:
            continue
        what = "held" if policy.is_token_level else "tokens"  # the number of tokens varies between two prunings
        full = [mark for mark in marks if mark >= 50 and by[name, mark][what] == last[what]]
        full = full[[mark in full for mark in marks[marks.index(full[0]) :]].index(True) :]
        wall = [np.median(by[name, mark]["ms"]) for mark in full]
        quotient = [np.mean(by[name, mark][clock]) / np.mean(by[ALONE, mark][clock]) for mark in full]
        memory = [by[name, mark]["policy"] / 1e6 for mark in full]
        cells = [f"{full[0]:,} to {full[-1]:,}", *(spread(values) for values in (quotient, wall, memory))]
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    if not rows:
        return []
    return [
        "From when the memory is full, at frame 50 at the earliest: lowest and highest of the marks, and half their "
        "difference over their mean. The first column of numbers is the stream's "
        + ("time" if device.type == "cuda" else "processor time")
        + f" over that of {ALONE}, measured right after each frame, means over the frames around a mark:",
        "",
        "| memory | frames | over one frame alone | ms, median | MB |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def spread(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g} to {high:.3g} (±{(high - low) / (high + low) * 100:.1f} %)"


def draw(by: dict, names: list[str], again: dict[int, float], image_size, device, arguments) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for name in names:
        own = {mark: line for (other, mark), line in by.items() if other == name}
        (line,) = left.plot([*own], [np.median(entry["ms"]) for entry in own.values()], marker=".", lw=1, label=name)
        left.plot([*own], [entry["floor_ms"] for entry in own.values()], color=line.get_color(), lw=1, ls=":")
        right.plot([*own], [entry["policy"] / 1e6 for entry in own.values()], marker=".", lw=1, label=name)
    left.plot([], [], color="gray", ls=":", label="floor of each")
    if again:
        left.plot([*again], [*again.values()], color="black", marker="o", ls="--", label=RECOMPUTE)
    left.set(xlabel="frame", ylabel="ms for this frame", xscale="log", yscale="log", title="time per frame, median")
    right.set(xlabel="frame", ylabel="MB", xscale="log", yscale="log", title="memory of the stream with free slots")
    left.legend(fontsize=8)
    figure.suptitle(
        f"{arguments.size}, {image_size[1]}×{image_size[0]}, {arguments.dtype}. {describe_machine(device)}", fontsize=9
    )
    figure.savefig(arguments.out.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
