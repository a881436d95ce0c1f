"""Milliseconds per frame and memory against the frame number: KeepAll, Window and recomputing everything with VGGT.

    python benchmarks/streaming.py --size small --frames 500 --out benchmarks/streaming-small-cpu

writes OUT.md (table, command, machine), OUT.png (curves) and OUT.json (every frame). Random weights: speed and memory
do not depend on what the network has learnt.
"""

import argparse
import gc
import json
import shlex
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch
from machine import describe
from tqdm import tqdm

from streamvggt import KeepAll, StreamSession, Window, load_model

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
    "small": ("random:small", {}, (126, 224)),
    "medium": ("random:full", MEDIUM, (210, 280)),
    "full": ("random:full", {}, (392, 518)),
}
POLICIES = {"KeepAll": KeepAll(), "Window(1, 8)": Window(1, 8)}
RECOMPUTE = "VGGT again"
HEADS = ("camera", "depth", "points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--keep-all-frames", type=int, help="stop KeepAll earlier (default: as the others)")
    parser.add_argument("--recompute-frames", type=int, default=32, help="longest sequence to compute again with VGGT")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--attention", choices=("sdpa", "flash"), default="sdpa")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    weights, config, image_size = SIZES[arguments.size]
    options = {"device": device, "dtype": dtype, "attention": arguments.attention, "heads": HEADS, **config}
    curves = {}
    model = load_model(weights, sees="past", **options)
    for name, policy in POLICIES.items():
        num_frames = arguments.frames
        if isinstance(policy, KeepAll) and arguments.keep_all_frames:
            num_frames = arguments.keep_all_frames
        curves[name] = measure_stream(StreamSession(model, policy=policy), num_frames, image_size, device, name)
    del model
    gc.collect()
    model = load_model(weights, sees="all", **options)
    lengths = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= arguments.recompute_frames]
    curves[RECOMPUTE] = measure_recomputing(model, lengths, image_size, device)

    machine = describe(device)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps({"machine": machine, "curves": curves}))
    draw(curves, arguments, image_size, machine)
    table = write_table(curves, arguments, image_size, machine)
    print(table)


def measure_stream(session: StreamSession, num_frames: int, image_size, device, name: str) -> dict[str, list]:
    """Of every frame: number, milliseconds, bytes of the stream's memory, bytes of the process (or of the device).

    And, right after it, the milliseconds of the same network on one frame without a past: a machine whose speed wanders
    slows both alike.
    """
    curve = {"frame": [], "ms": [], "memory": [], "process": [], "alone_ms": []}
    frame = torch.rand(3, *image_size)
    alone = frame[None, None].to(device)
    for _ in range(2):  # first calls pick kernels and fill pools
        session.push(frame)
    session.reset()
    gc.collect()
    for number in tqdm(range(1, num_frames + 1), desc=name, unit="frame"):
        synchronize(device)
        start = time.perf_counter()
        session.push(frame)
        synchronize(device)
        curve["frame"].append(number)
        curve["ms"].append((time.perf_counter() - start) * 1000)
        curve["memory"].append(session.memory.num_bytes)
        curve["process"].append(process_bytes(device))
        start = time.perf_counter()
        with torch.no_grad():
            session.model(alone)
        synchronize(device)
        curve["alone_ms"].append((time.perf_counter() - start) * 1000)
    return curve


def measure_recomputing(model, lengths: list[int], image_size, device) -> dict[str, list]:
    """Of some sequence lengths: the whole sequence through the bidirectional network, as an update at that frame."""
    curve = {"frame": [], "ms": [], "memory": [], "process": []}
    for length in tqdm(lengths, desc=RECOMPUTE, unit="sequence"):
        frames = torch.rand(1, length, 3, *image_size, device=device)
        synchronize(device)
        start = time.perf_counter()
        with torch.no_grad():
            model(frames)
        synchronize(device)
        curve["frame"].append(length)
        curve["ms"].append((time.perf_counter() - start) * 1000)
        curve["memory"].append(0)
        curve["process"].append(process_bytes(device))
    return curve


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def process_bytes(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def around(curve: dict[str, list], frame: int, what: str) -> float | None:
    """The median over the 21 frames around a frame, or the value itself where only some were measured."""
    frames = np.array(curve["frame"])
    if frame not in frames:
        return None
    near = np.abs(frames - frame) <= (10 if len(frames) > 40 else 0)
    return float(np.median(np.array(curve[what])[near]))


def flatness(values) -> str:
    """Lowest and highest median of 50 frames in a row from frame 50 on, and half their difference over their mean."""
    blocks = [np.median(values[start : start + 50]) for start in range(50, len(values) - 49, 50)]
    low, high = min(blocks), max(blocks)
    return f"{low:.3g} to {high:.3g} (±{(high - low) / (high + low) * 100:.1f} %)"


def write_table(curves, arguments, image_size, machine: str) -> str:
    marks = [n for n in (1, 2, 4, 8, 16, 32, 50, 100, 200, 300, 400, 500, 1000, 2000) if n <= arguments.frames]
    size = f"{arguments.size} network, {image_size[1]}×{image_size[0]}, {arguments.dtype}, heads {', '.join(HEADS)}"
    lines = [f"# Streaming: {size}", "", "| | " + " | ".join(f"frame {n}" for n in marks) + " |"]
    lines.append("|---" * (len(marks) + 1) + "|")
    for what, unit, scale in (("ms", "ms", 1), ("memory", "MB of keys and values", 1e6), ("process", "MB in all", 1e6)):
        for name, curve in curves.items():
            if what == "memory" and name == RECOMPUTE:
                continue
            values = [around(curve, n, what) for n in marks]
            shown = ["" if value is None else f"{value / scale:.0f}" for value in values]
            lines.append(f"| {name}: {unit} | " + " | ".join(shown) + " |")
    lines += ["", "Medians over 21 frames around each frame where every frame was measured."]
    if arguments.frames >= 100:
        window = curves["Window(1, 8)"]
        process = np.array(window["process"][50:]) / 1e6
        lines += [
            "",
            f"Window(1, 8) from frame 50 to {arguments.frames}, medians of 50 frames: {flatness(window['ms'])} ms; "
            "over the time of the same network on one frame without a past, measured right after each frame: "
            f"{flatness(np.array(window['ms']) / window['alone_ms'])}. Process memory {process.min():.0f} to "
            f"{process.max():.0f} MB.",
        ]
    command = shlex.join(["python", "benchmarks/streaming.py", *sys.argv[1:]])
    lines += ["", f"`{command}`", "", machine, "", f"![curves]({arguments.out.name}.png)", ""]
    text = "\n".join(lines)
    arguments.out.with_suffix(".md").write_text(text)
    return text


def draw(curves, arguments, image_size, machine: str) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, curve in curves.items():
        style = {"marker": "o", "ls": "--"} if name == RECOMPUTE else {"lw": 1}
        left.plot(curve["frame"], curve["ms"], label=name, **style)
        if name != RECOMPUTE:
            right.plot(curve["frame"], np.array(curve["memory"]) / 1e6, label=name, **style)
    left.set(xlabel="frame", ylabel="ms for this frame", xscale="log", yscale="log", title="time per frame")
    right.set(xlabel="frame", ylabel="MB", title="keys and values held (slots double)")
    left.legend()
    right.legend()
    figure.suptitle(f"{arguments.size}, {image_size[1]}×{image_size[0]}, {arguments.dtype}. {machine}", fontsize=9)
    figure.savefig(arguments.out.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
