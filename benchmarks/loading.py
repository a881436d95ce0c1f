"""Measure time and peak memory of loading a checkpoint.

    python benchmarks/loading.py WEIGHTS --out benchmarks/loading.md

Memory is the private memory of the process (RssAnon on Linux), without pages of the mapped file.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from environment_info import output_path, publish

from streamvggt import load_model


def private_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def measure(weights: str, dtype: str) -> str:
    before, peak, done = private_bytes(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.25):
            peak = max(peak, private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    model = load_model(weights, dtype=getattr(torch, dtype))
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    peak = max(peak, private_bytes()) - before
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    return f"| {dtype} | {size / 1e9:.2f} GB | {peak / 1e9:.2f} GB | {seconds:.1f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--out", type=output_path)
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one dtype, in a process of its own
    arguments = parser.parse_args()
    if arguments.only:
        print(measure(arguments.weights, arguments.only))
        return
    rows = [
        subprocess.run(
            [sys.executable, __file__, arguments.weights, "--only", dtype], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        for dtype in ("float32", "bfloat16")
    ]
    table = ["# Loading a checkpoint", "", "| to | weights | peak private memory | time |", "|---|---|---|---|", *rows]
    publish(table, arguments.out, torch.device("cpu"))


if __name__ == "__main__":
    main()
