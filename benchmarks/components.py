"""Measure the time of each part of a frame, with a roofline lower bound.

    python benchmarks/components.py --sizes tiny small full --out benchmarks/components.md

The lower bound of a part is the longer of two times: its FLOPs at the rate of a large matrix product in the same number
format, and its bytes (weights, keys and values once) at the rate of a large copy.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from environment_info import output_path, signed
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from streamvggt import SlidingWindow, StreamSession, load_model
from streamvggt.layers.cached_attention import CachedPattern
from streamvggt.model.memory import KVCacheMemory
from streamvggt.model.vggt import VGGT

HEADS = ("camera", "depth")
# Weights, height × width, number formats, policy, frames to fill the memory, frames timed.
SIZES = {
    "tiny": ("tiny", (80, 112), ("float32", "bfloat16"), SlidingWindow(1, 8), 12, 40),
    "small": ("random:small", (126, 224), ("float32", "bfloat16"), SlidingWindow(1, 8), 12, 30),
    "full": ("random:full", (392, 518), ("bfloat16",), SlidingWindow(0, 1), 2, 2),
}
PARTS = {
    "encoder": "patch encoder",
    "frame": "frame blocks",
    "global": "global blocks without their attention",
    "attention": "attention over the memory",
    "camera": "camera head",
    "depth": "depth head",
    "memory": "bookkeeping of the memory",
    "rest": "all else",
}


MEMORY_METHODS = (
    (CachedPattern, "__call__"),
    (KVCacheMemory, "layer_patterns"),
    (KVCacheMemory, "camera_patterns"),
    (KVCacheMemory, "update"),
    (KVCacheMemory, "commit"),
)
"""Methods that count as bookkeeping of the memory."""


@dataclass
class Meter:
    """Sum by part how far a reading (clock or counter) advances. Nested parts count separately."""

    read: Callable[[], float]
    total: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _inside: list[str] = field(default_factory=lambda: ["rest"])
    _last: float | None = None

    def switch(self) -> None:
        now = self.read()
        if self._last is not None:
            self.total[self._inside[-1]] += now - self._last
        self._last = now

    def enter(self, part: str) -> None:
        self.switch()
        self._inside.append(part)

    def leave(self) -> None:
        self.switch()
        self._inside.pop()


current: Meter | None = None
"""Called when a part begins and ends. None: not recorded."""


def metered(part: str, function: Callable) -> Callable:
    def run(*args, **kwargs):
        meter = current
        if meter is None:
            return function(*args, **kwargs)
        meter.enter(part)
        try:
            return function(*args, **kwargs)
        finally:
            meter.leave()

    return run


def meter_network(model: VGGT) -> None:
    aggregator = model.aggregator
    parts = [("encoder", aggregator.patch_embed), ("camera", model.camera_head)]
    parts += [("frame", block) for block in aggregator.frame_blocks]
    parts += [("global", block) for block in aggregator.global_blocks]
    parts += [("depth", model.depth_head)]
    for part, module in parts:
        module.forward = metered(part, module.forward)
    for part, blocks in (("attention", aggregator.global_blocks), ("camera", model.camera_head.trunk)):
        for block in blocks:
            block.attn.kernel = metered(part, block.attn.kernel)


def meter_memory() -> None:
    for owner, method in MEMORY_METHODS:
        setattr(owner, method, metered("memory", getattr(owner, method)))


def readings(read: Callable[[], float], step: Callable[[], object]) -> dict[str, float]:
    """Return how far a reading advances in each part of one step."""
    global current
    current = meter = Meter(read)
    meter.switch()
    step()
    meter.switch()
    current = None
    return meter.total


def clock(device: torch.device) -> Callable[[], float]:
    """Return seconds: CPU time of this thread if it does all the work, else wall time after a synchronization."""
    if device.type == "cuda":

        def read() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return read
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def fastest(read: Callable[[], float], step: Callable[[], object], times: int = 20) -> float:
    seconds = []
    for _ in range(times):
        begun = read()
        step()
        seconds.append(read() - begun)
    return min(seconds)


def flops_per_second(dtype: torch.dtype, device: torch.device) -> float:
    # On a GPU large enough that launch and synchronization, about 20 µs, are negligible.
    rows, columns, inner = (8192, 8192, 8192) if device.type == "cuda" else (1024, 4096, 1024)
    x, w = (torch.randn(size, inner, dtype=dtype, device=device) for size in (rows, columns))
    return 2 * rows * columns * inner / fastest(clock(device), lambda: F.linear(x, w))


def bytes_per_second(device: torch.device) -> float:
    source = torch.ones(2**29 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(clock(device), lambda: target.copy_(source))


def attention_flops(q: torch.Size, k: torch.Size, v: torch.Size, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(q, k, v)


def bytes_of_parts(model: VGGT, memory: KVCacheMemory) -> dict[str, int]:
    """Return the bytes of weights, keys and values that a frame reads at least once."""

    def weights(*modules: torch.nn.Module) -> int:
        return sum(parameter.nbytes for module in modules for parameter in module.parameters())

    aggregator = model.aggregator
    size = next(model.parameters()).element_size()
    width = model.config.embed_dim
    return {
        **dict.fromkeys(PARTS, 0),
        "encoder": weights(aggregator.patch_embed),
        "frame": weights(aggregator.frame_blocks),
        "global": weights(aggregator.global_blocks),
        "attention": 2 * size * width * sum(memory.num_tokens),
        "camera": weights(model.camera_head),
        "depth": weights(model.depth_head),
        # Keys and values of a frame, read and written.
        "memory": 2 * 2 * size * width * aggregator.depth * memory.layers[0].tokens_per_frame,
    }


def measure(name: str, dtype_name: str, device: torch.device) -> list[str]:
    weights, image_size, _, policy, fill, times = SIZES[name]
    dtype = getattr(torch, dtype_name)
    model = load_model(weights, causal=True, heads=HEADS, dtype=dtype, device=device)
    model.requires_grad_(False)  # the FLOP counter requires gradients otherwise
    session = StreamSession(model, policy=policy)
    meter_network(model)
    frame = torch.rand(3, *image_size, device=device)

    def push() -> None:
        session.push(frame)

    for _ in range(fill):
        push()
    # PyTorch's counter does not cover its own kernel for CPUs.
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        flops = readings(counter.get_total_flops, push)
    read = clock(device)
    runs = [readings(read, push) for _ in range(times)]
    seconds = {part: statistics.median(run[part] for run in runs) for part in PARTS}
    whole = statistics.median(sum(run.values()) for run in runs)
    bytes_needed = bytes_of_parts(model, session.memory)
    flop_rate, byte_rate = flops_per_second(dtype, device), bytes_per_second(device)
    floors = {part: max(flops[part] / flop_rate, bytes_needed[part] / byte_rate) for part in PARTS}

    height, width = image_size
    lines = [
        f"## {weights}, {width}×{height}, {dtype_name}",
        "",
        f"The memory: {policy}, full. {flop_rate / 1e9:,.0f} GFLOP/s in a large matrix product, "
        f"{byte_rate / 1e9:.1f} GB/s in a large copy.",
        "",
        "| part | ms | of the whole | GFLOP | MB | floor, ms | ms / floor |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [(PARTS[part], seconds[part], flops[part], bytes_needed[part], floors[part]) for part in PARTS]
    rows.append(("**whole frame**", whole, sum(flops.values()), sum(bytes_needed.values()), sum(floors.values())))
    for title, spent, flop, size, floor in rows:
        above = f"{spent / floor:.1f}" if floor > 1e-5 else ""
        lines.append(
            f"| {title} | {spent * 1e3:.1f} | {spent / whole:.0%} | {flop / 1e9:.3g} | {size / 1e6:.3g} "
            f"| {floor * 1e3:.2f} | {above} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", choices=SIZES, nargs="+", default=["tiny", "small"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=output_path, required=True)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    meter_memory()
    how = "processor time of the one thread" if clock(device) is time.thread_time else "on the wall"
    report = [
        "# Where the time of a frame goes",
        "",
        f"Heads {', '.join(HEADS)}. Medians, {how}. Floor: the longer of FLOPs at the rate of a large matrix",
        "product and bytes (weights once, keys and values met once) at the rate of a large copy.",
    ]
    for name in arguments.sizes:
        for dtype in SIZES[name][2]:
            part = measure(name, dtype, device)
            print(*part, sep="\n", flush=True)
            report += ["", *part]
            arguments.out.write_text(signed(report, device), encoding="utf-8")


if __name__ == "__main__":
    main()
