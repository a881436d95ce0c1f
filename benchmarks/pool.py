"""Measure frames per second of several streams: batched in a pool, and sequentially in sessions.

    python benchmarks/pool.py --out benchmarks/pool.md

Both alternate frame by frame, so that a varying speed of the machine affects both equally.
"""

import argparse
import time

import numpy as np
import torch
from environment_info import output_path, publish
from roofline import synchronize
from tqdm import tqdm

from streamvggt import SessionPool, SlidingWindow, StreamSession, load_model

# Weights, height × width, number format, frames timed.
SIZES = {
    "tiny": ("tiny", (80, 112), "float32", 20),
    "small": ("random:small", (126, 224), "float32", 10),
    "full": ("random:full", (28, 28), "bfloat16", 5),
}
STREAMS = (1, 2, 4, 8)
HEADS = ("camera", "depth")
POLICY = SlidingWindow(1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rows = []
    for name in arguments.sizes:
        weights, image_size, dtype, num_frames = SIZES[name]
        model = load_model(weights, causal=True, heads=HEADS, dtype=getattr(torch, dtype), device=device)
        images = torch.rand(max(STREAMS), 3, *image_size, device=device)
        for num_streams in tqdm(STREAMS, desc=name, unit="number of streams"):
            together, apart = measure(model, images[:num_streams], num_frames)
            rows.append(
                f"| {name}, {image_size[1]}×{image_size[0]}, {dtype} | {num_streams} | {num_streams / apart:.3g} | "
                f"{num_streams / together:.3g} | {apart / together:.2f} | {together * 1000:.0f} |"
            )
        del model
    publish(
        [
            "# Several streams on one model",
            "",
            f"Frames per second of all streams together under `{POLICY}`, memories full, heads {', '.join(HEADS)}: in "
            "sessions that are computed one after the other, and in a pool that computes the next frame of each in one "
            "batch. Medians; the last column is how long each stream waits for its frame in the pool.",
            "",
            "| network | streams | one after the other | pool | gain | ms for a step of the pool |",
            "|---|---|---|---|---|---|",
            *rows,
        ],
        arguments.out,
        device,
    )


@torch.no_grad()
def measure(model, images: torch.Tensor, num_frames: int) -> tuple[float, float]:
    """Return the seconds for one frame of each stream: in a pool, and sequentially."""
    pool = SessionPool(model, max_batch=len(images))
    streams = [pool.open(policy=POLICY) for _ in images]
    sessions = [StreamSession(model, policy=POLICY) for _ in images]
    seconds = {"together": [], "apart": []}
    for _ in range(POLICY.capacity + num_frames):
        synchronize(images.device)
        begun = time.perf_counter()
        for stream, image in zip(streams, images, strict=True):
            stream.push(image)
        pool.step()
        synchronize(images.device)
        middle = time.perf_counter()
        for session, image in zip(sessions, images, strict=True):
            session.push(image)
        synchronize(images.device)
        seconds["together"].append(middle - begun)
        seconds["apart"].append(time.perf_counter() - middle)
    return tuple(float(np.median(values[POLICY.capacity :])) for values in seconds.values())


if __name__ == "__main__":
    main()
