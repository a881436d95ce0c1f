"""How many frames fit: peak memory of the full network in bfloat16, and what the memory policies take beside it.

    python benchmarks/low_memory.py --out benchmarks/low_memory.md

Weights are random; memory does not depend on what they are. A few frames are measured, the rest is proportion.
"""

import argparse
import gc
import shlex
import sys
import threading
from pathlib import Path

import torch
from loading import private_bytes
from machine import describe
from tqdm import tqdm

from streamvggt import StreamSession, StreamVGGT, Window
from streamvggt.stream.policy import parse_policy

IMAGE = (392, 518)
SIZES = (8, 12, 16, 24)
DRIVER = 0.5  # GB of a card that are left alone
MEMORIES = ("window:1,8", "blocks:8", "keyframes:8,24", "selective:8,4", "diversity:48,4")
STORAGES = ("plain", "int8")


def network(heads: tuple[str, ...]) -> StreamVGGT:
    """Of the released size in bfloat16, made without a float32 copy."""
    with torch.device("meta"):
        model = StreamVGGT(heads=heads).to(torch.bfloat16)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.02) if parameter.ndim > 1 else parameter.fill_(float(name.endswith("norm.weight")))
    return model.eval()


class Peak:
    """The most private memory that this process takes while it is watched."""

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


def measure(heads: tuple[str, ...], num_frames: int) -> dict[str, dict[str, float]]:
    """Per storage, in bytes: "weights", "slot" of a frame, "peak" while frames are computed, "memory" taken then."""
    before = private_bytes()
    model = network(heads)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    found = {}
    for storage in STORAGES:
        session = StreamSession(model, policy=Window(1, num_frames - 2), storage=storage)
        with Peak() as peak:
            for _ in tqdm(range(num_frames), desc=f"{', '.join(heads)}, {storage}", unit="frame"):
                session.push(torch.rand(3, *IMAGE))
        slot = session.num_bytes / session.policy.capacity
        found[storage] = {
            "weights": weights,
            "slot": slot,
            "peak": peak.bytes - before,
            "memory": session.num_bytes,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    lines = ["# Memory of the full network, bfloat16, 518×392", "", "## Measured", ""]
    lines += [
        "| heads, storage | weights, GB | of which memory, MB per frame | peak of the process, GB | all else, GB |"
    ]
    lines += ["|---|---|---|---|---|"]
    slots, beside = {}, {}
    for heads in (("camera", "depth"), ("camera", "depth", "points")):
        for storage, found in measure(heads, arguments.frames).items():
            other = found["peak"] - found["weights"] - found["memory"]
            slots[storage] = found["slot"]
            beside[heads, storage] = found["weights"] + other
            lines.append(
                f"| {', '.join(heads)}; {storage} | {found['weights'] / 1e9:.2f} | {found['slot'] / 1e6:.1f} "
                f"| {found['peak'] / 1e9:.2f} | {other / 1e9:.2f} |"
            )
        gc.collect()
    heads = ("camera", "depth", "points")
    fixed = max(beside[heads, storage] for storage in STORAGES)
    # One layer at a time is turned back to what attention computes in: a 24th of the plain memory, for the moment.
    cost = {"plain": slots["plain"], "int8": slots["int8"] + slots["plain"] / 24}
    lines += [
        "",
        "Peak: the most private memory of the process, less what it had before the network was made; "
        f"{arguments.frames} frames. All else: activations, buffers, what PyTorch keeps.",
        "",
        "## In proportion to that",
        "",
        f"With all three heads: {fixed / 1e9:.2f} GB for weights and all else, the memory beside it. Under int8",
        "one layer at a time is turned back to bfloat16 for the moment; that is counted.",
        "",
        "| `--memory` | frames' worth of room | plain, GB in all | int8, GB in all |",
        "|---|---|---|---|",
    ]
    for name in MEMORIES:
        capacity = parse_policy(name).capacity
        total = [(fixed + capacity * cost[storage]) / 1e9 for storage in STORAGES]
        lines.append(f"| `{name}` | {capacity} | {total[0]:.1f} | {total[1]:.1f} |")
    lines += [
        "",
        "| card with | room of a bounded memory, frames, plain | int8 | `--memory all` until frame, plain | int8 |",
        "|---|---|---|---|---|",
    ]
    for size in SIZES:
        room = {storage: int(((size - DRIVER) * 1e9 - fixed) / cost[storage]) for storage in STORAGES}
        doubled = {storage: largest_doubling(room[storage]) for storage in STORAGES}
        lines.append(f"| {size} GB | {room['plain']} | {room['int8']} | {doubled['plain']} | {doubled['int8']} |")
    lines += [
        "",
        f"{DRIVER} GB of a card are left to its driver and PyTorch's context (assumed, not measured). Under `all`",
        "slots double as they run out: 8, 16, 32, …",
        "",
        f"`{shlex.join(['python', 'benchmarks/low_memory.py', *sys.argv[1:]])}`",
        "",
        describe(torch.device("cpu")) + ". Measured on a CPU; not run on CUDA, where kernels want other buffers.",
        "",
    ]
    arguments.out.write_text("\n".join(lines))
    print(*lines, sep="\n")


def largest_doubling(room: int, first: int = 8) -> int:
    slots = first
    while 2 * slots <= room:
        slots *= 2
    return slots if slots <= room else 0


if __name__ == "__main__":
    main()
