"""Tables and curves of streaming.py from its measurements."""

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from environment_info import publish
from roofline import Rates

from streamvggt.provenance import describe_machine
from streamvggt.stream.policy import parse_policy

RECOMPUTE = "VGGT again"
ALONE = "one frame without memory"
HEADS = ("camera", "depth")


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
