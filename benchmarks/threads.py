"""Time per frame of `tiny` with one and with two threads, alone and beside a busy process.

    python benchmarks/threads.py --cores 0,1 --out benchmarks/threads.md

"Automatic" is the choice of the commands (`set_threads`). The busy process computes without pause and may use any of
the cores. Every measurement is a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from environment_info import output_path, publish

from streamvggt import StreamSession, load_frames
from streamvggt.flags import whole
from streamvggt.model.weights import load_with_threads

CLIP = Path(__file__).parents[1] / "assets" / "clip.mp4"
WARM_UP = 12  # frames until the memory is full


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default="0,1", help="processor cores to run on (default: 0,1)")
    parser.add_argument("--frames", type=whole(), default=40, help="measured frames (default: 40)")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
    lines = [
        "# Threads of a small model",
        "",
        f"`tiny`, time per frame in ms, median of {arguments.frames} frames, on the cores {arguments.cores}.",
        "",
        "| threads | alone | beside a busy process | CPU time per frame, alone |",
        "|---|---|---|---|",
    ]
    for label, threads in (("automatic", None), ("1", 1), ("2", 2)):
        alone, cpu = measure(threads, arguments.frames)
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            beside, _ = measure(threads, arguments.frames)
        finally:
            busy.kill()
            busy.wait()
        lines.append(f"| {label} | {alone:.0f} | {beside:.0f} | {cpu:.0f} |")
    publish(lines, arguments.out, torch.device("cpu"))


def measure(threads: int | None, num_frames: int) -> tuple[float, float]:
    """Return wall and CPU time per frame in ms, measured in a new process."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    words = [sys.executable, __file__, "--worker", str(num_frames)]
    return tuple(json.loads(subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True).stdout))


def worker(num_frames: int) -> None:
    model = load_with_threads("tiny", causal=True, device="cpu")
    session = StreamSession(model)
    frames = list(islice(load_frames(CLIP, size=model.config.image_size, patch_size=model.patch_size), WARM_UP))
    for frame in frames:
        session.push(frame)
    walls, begun = [], time.process_time()
    for number in range(num_frames):
        start = time.perf_counter()
        session.push(frames[number % WARM_UP])
        walls.append(time.perf_counter() - start)
    cpu = (time.process_time() - begun) / num_frames
    print(json.dumps([median(walls) * 1000, cpu * 1000]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(int(sys.argv[2]))
    else:
        main()
