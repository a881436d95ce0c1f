"""Measure the peak memory of the full network in bfloat16, and compute how many frames fit by policy.

    python benchmarks/low_memory.py --out benchmarks/low_memory.md

Weights are random, because memory does not depend on their values. A few frames are measured, the rest is proportional.
"""

import argparse
import gc
import json
import subprocess
import sys
import threading

import torch
from environment_info import output_path, publish
from loading import private_bytes
from tqdm import tqdm

from streamvggt import SlidingWindow, StreamSession, StreamVGGT
from streamvggt.flags import whole
from streamvggt.stream.policy import parse_policy

IMAGE = (392, 518)
HEADS = ("camera", "depth")  # of `streamvggt reconstruct`
SIZES = (8, 12, 16, 24)
DRIVER = 0.5  # GB of a GPU that stay free
MEMORIES = ("window:1,8", "frame-diversity:8", "keyframes:8,24", "selective:8,4", "token-diversity:48,4")
STORAGES = ("auto", "int8")


def network(heads: tuple[str, ...]) -> StreamVGGT:
    """Return a network of the released size in bfloat16, built without a float32 copy."""
    with torch.device("meta"):
        model = StreamVGGT(heads=heads).to(torch.bfloat16)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    return model.eval()


class Peak:
    """Maximum private memory of this process within the block."""

    def __enter__(self):
        gc.collect()
        self.bytes, self._done = private_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.bytes = max(self.bytes, private_bytes())

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()


def measure(storage: str, num_frames: int) -> dict[str, float]:
    """Return bytes: "weights", "slot" per frame, "memory" of all slots, "peak" of the process."""
    before = private_bytes()
    model = network(HEADS)
    session = StreamSession(model, policy=SlidingWindow(1, num_frames - 2), kv_cache_dtype=storage)
    with Peak() as peak:
        for _ in tqdm(range(num_frames), desc=storage, unit="frame"):
            session.push(torch.rand(3, *IMAGE))
    return {
        "weights": sum(parameter.nbytes for parameter in model.parameters()),
        "slot": session.num_bytes / session.policy.capacity,
        "memory": session.num_bytes,
        "peak": peak.bytes - before,
    }


def measure_apart(storage: str, num_frames: int) -> dict[str, float]:
    """Measure in a separate process, because PyTorch returns little of its memory."""
    command = [sys.executable, __file__, "--only", storage, "--frames", str(num_frames)]
    outputs = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(outputs.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=whole(), default=2)
    parser.add_argument("--only", choices=STORAGES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.frames)))
        return
    lines = [f"# Memory of the full network, bfloat16, {IMAGE[1]}×{IMAGE[0]}, heads {' and '.join(HEADS)}", ""]
    lines += ["## Measured", ""]
    lines += ["| KV cache | weights, GB | memory, MB per frame | peak of the process, GB | other, GB |"]
    lines += ["|---|---|---|---|---|"]
    slots, fixed = {}, 0.0
    for storage in STORAGES:
        found = measure_apart(storage, arguments.frames)
        other = found["peak"] - found["weights"] - found["memory"]
        slots[storage] = found["slot"]
        fixed = max(fixed, found["weights"] + other)
        lines.append(
            f"| {storage} | {found['weights'] / 1e9:.2f} | {found['slot'] / 1e6:.1f} | {found['peak'] / 1e9:.2f} "
            f"| {other / 1e9:.2f} |"
        )
    # One layer at a time is converted to the dtype of attention: temporarily 1/24 of the unquantized memory.
    cost = {"auto": slots["auto"], "int8": slots["int8"] + slots["auto"] / 24}
    lines += [
        "",
        f"Peak: maximum private memory while {arguments.frames} frames are computed, without the memory before the "
        "network is built. Other: activations, buffers, and memory that PyTorch keeps. The point head adds 0.07 GB of "
        "weights.",
        "",
        "## Computed from the measurement",
        "",
        f"{fixed / 1e9:.2f} GB for weights and other, plus the memory of the stream. With int8, one layer at a time is "
        "converted to bfloat16. This temporary memory is included.",
        "",
        "| `--policy` | capacity, frames | total, GB | total with int8, GB |",
        "|---|---|---|---|",
    ]
    for name in MEMORIES:
        capacity = parse_policy(name).capacity
        total = [(fixed + capacity * cost[storage]) / 1e9 for storage in STORAGES]
        lines.append(f"| `{name}` | {capacity} | {total[0]:.1f} | {total[1]:.1f} |")
    lines += [
        "",
        "| GPU memory | maximum capacity, frames | with int8 | last frame of `--policy all` | with int8 |",
        "|---|---|---|---|---|",
    ]
    for size in SIZES:
        room = {storage: int(((size - DRIVER) * 1e9 - fixed) / cost[storage]) for storage in STORAGES}
        doubled = {storage: largest_doubling(room[storage]) for storage in STORAGES}
        lines.append(f"| {size} GB | {room['auto']} | {room['int8']} | {doubled['auto']} | {doubled['int8']} |")
    lines += [
        "",
        f"{DRIVER} GB are reserved for the driver and the CUDA context (assumed, not measured). With `all`, the slots "
        "double when they are full: 8, 16, 32, …",
        "",
        "Measured on a CPU. Not run on CUDA, where kernels need other buffers.",
    ]
    publish(lines, arguments.out, torch.device("cpu"))


def largest_doubling(room: int, first: int = 8) -> int:
    slots = first
    while 2 * slots <= room:
        slots *= 2
    return slots if slots <= room else 0


if __name__ == "__main__":
    main()
