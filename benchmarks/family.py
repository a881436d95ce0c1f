"""Measure time and memory per frame of each published network, by stream length and with a bounded memory.

    python benchmarks/family.py --out benchmarks/family.md

On a CPU, the networks have a medium size and random weights. On CUDA, they have the sizes of the released files, in
bfloat16.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from environment_info import output_path, publish

from streamvggt import SlidingWindow, StreamSession, StreamVGGT, Trajectory
from streamvggt.flags import whole
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.infer_config import LINGBOT_OPTIONS
from streamvggt.model.random_networks import RANDOM_CONFIGS
from streamvggt.stream.policies.trajectory import published_policy

TRACKER = "track_"
MIDDLE = {name: size for name, size in RANDOM_CONFIGS["random:small"].items() if not name.startswith(TRACKER)}
DENSE = ("camera", "depth", "points")
NETWORKS = {
    "StreamVGGT, VGGT, FastVGGT's file": {"heads": DENSE},
    "STream3R": {"heads": DENSE},
    "LingBot-Map": {"heads": ("camera", "depth"), **LINGBOT_OPTIONS},
}
BOUNDED: dict[str, EvictionPolicy] = {
    "StreamVGGT, VGGT, FastVGGT's file": SlidingWindow(1, 8),
    "STream3R": SlidingWindow(1, 5),
    "LingBot-Map": Trajectory(8, 8),
}
FRAMES = (1, 10, 50, 100)


def read_clock(device: torch.device) -> Callable[[], float]:
    """Return the CPU time of this thread, or on CUDA the wall time after a synchronization."""
    if device.type != "cuda":
        return time.thread_time

    def read() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return read


def build(options: dict, device: torch.device) -> StreamVGGT:
    torch.manual_seed(0)
    sizes = {} if device.type == "cuda" else MIDDLE
    with torch.device(device):
        model = StreamVGGT(**sizes, **options)
    return model.to(torch.bfloat16 if device.type == "cuda" else torch.float32).eval()


def measure(
    model: StreamVGGT, policy: EvictionPolicy, images: torch.Tensor, frames: tuple[int, ...]
) -> list[tuple[int, float, int]]:
    """Return, per stream length, the median milliseconds of the latest steps and the bytes of the memory."""
    read = read_clock(images.device)
    session, times, rows = StreamSession(model, policy=policy), [], []
    for number in range(max(frames)):
        begun = read()
        session.push(images[number % len(images)])
        times.append(1e3 * (read() - begun))
        if number + 1 in frames:
            rows.append((number + 1, statistics.median(times[-3:]) if number else times[0], session.num_bytes))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=whole(), nargs="+", default=list(FRAMES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=output_path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_cuda = device.type == "cuda"
    height, width = (392, 518) if on_cuda else (84, 112)
    images = torch.rand(16, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    lines = [
        "# Networks of the family",
        "",
        f"Streams of {height}×{width} frames, one frame per call, {'full' if on_cuda else 'middle'} size,",
        "random weights. A step is the median of the latest three. Frame 10 of LingBot-Map is after its joint step.",
        "",
        "| network | million parameters | policy | frame | ms | MB of the memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, options in NETWORKS.items():
        model = build(options, device)
        parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        for policy, frames in ((published_policy(model), arguments.frames), (BOUNDED[name], arguments.frames[-2:])):
            for number, milliseconds, size in measure(model, policy, images, tuple(frames)):
                lines.append(
                    f"| {name} | {parameters:.1f} | `{policy}` | {number} | {milliseconds:.0f} | {size / 1e6:.2f} |"
                )
                print(lines[-1], flush=True)
    clock = "Times are on the wall." if on_cuda else "Times are processor time of the one thread."
    publish([*lines, "", clock], arguments.out, device)


if __name__ == "__main__":
    main()
