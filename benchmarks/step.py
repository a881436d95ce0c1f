"""Measure one frame with a full memory: eager, compiled or replayed, by number format and KV cache.

    python benchmarks/step.py --size tiny --out benchmarks/step-tiny-cpu.md

Each case alternates with eager float32 frame by frame, so that a varying speed of the machine affects both equally.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from components import HEADS, SIZES, clock
from environment_info import output_path, signed

from streamvggt import StreamSession, load_model
from streamvggt.flags import whole
from streamvggt.stream.frames import load_frames

CLIP = Path(__file__).parents[1] / "assets" / "clip.mp4"


def cases(device: torch.device, steps: list[str]) -> list[tuple[str, str, str]]:
    """Return number formats, KV cache dtypes and step modes."""
    chosen = [("float32", "auto", "eager"), ("float32", "int8", "eager"), ("bfloat16", "auto", "eager")]
    chosen += [("bfloat16", "int8", "eager")]
    return chosen + [(dtype, "auto", step) for step in steps for dtype in ("float32", "bfloat16")]


def difference(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the mean difference divided by the standard deviation of the exact result."""
    return ((ours.float() - exact).abs().mean() / exact.std()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--steps", nargs="*", choices=("compile", "cuda_graph"), default=["compile"])
    parser.add_argument("--frames", type=whole(), default=40, help="timed, after the memory is full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=output_path, required=True)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    weights, (height, width), _, policy, fill, _ = SIZES[arguments.size]
    read = clock(device)
    images = [frame.image for frame in load_frames(CLIP, size=width, mode="crop")]
    images = [torch.nn.functional.interpolate(image[None], (height, width)).to(device)[0] for image in images]
    networks = {
        dtype: load_model(weights, causal=True, heads=HEADS, dtype=getattr(torch, dtype), device=device)
        for dtype in ("float32", "bfloat16")
    }
    how = "CPU time of the thread" if read is time.thread_time else "wall time"
    rows = []
    for dtype, storage, step in cases(device, arguments.steps):
        reference = StreamSession(networks["float32"], policy=policy)
        session = StreamSession(networks[dtype], policy=policy, kv_cache_dtype=storage, step_mode=step)
        times, plain_times, depth, pose = [], [], [], []
        first = 0.0
        for number in range(fill + 3 + arguments.frames):
            image = images[number % len(images)]
            spent = []
            answers = []
            for one in (reference, session):
                begun, on_wall = read(), time.perf_counter()
                answers.append(one.push(image))
                spent.append(read() - begun)
                first = max(first, time.perf_counter() - on_wall)
            exact, outputs = answers
            depth.append(difference(outputs.depth, exact.depth))
            pose.append((outputs.pose_enc.float() - exact.pose_enc).abs().max().item())
            if number >= fill + 3:
                plain_times.append(spent[0])
                times.append(spent[1])
        ms, plain_ms = statistics.median(times) * 1e3, statistics.median(plain_times) * 1e3
        rows.append(
            f"| {step}, {dtype}, {storage} | {ms:.1f} | {plain_ms:.1f} | {ms / plain_ms:.2f} | {first:.1f} "
            f"| {session.num_bytes / 1e6:.2f} | {statistics.mean(depth):.1e} | {max(pose):.1e} |"
        )
        print(rows[-1], flush=True)
        report = signed(
            [
                f"# A frame of {weights}, {width}×{height}, memory {policy}",
                "",
                f"Heads {', '.join(HEADS)}; frames of `assets/clip.mp4`. Medians of {arguments.frames} frames, {how};",
                "each case alternates with eager float32. The slowest frame compiles or records (wall time).",
                "Difference from eager float32: mean of depth over its deviation; maximum of the pose encoding.",
                "",
                "| step, weights, storage | ms | eager float32, ms | quotient | slowest frame, s | MB of memory "
                "| depth | pose |",
                "|---|---|---|---|---|---|---|---|",
                *rows,
            ],
            device,
        )
        arguments.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
