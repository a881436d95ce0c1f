"""Tables and curves of long_streams.py from the scores of its videos."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from environment_info import publish

from streamvggt.stream.policy import DEFAULT_POLICY

STILL = "constant depth, static camera"
LABELS = {STILL: STILL, "window:0,0": "`window:0,0` (only the current frame)"}
MARKERS = "osD^v<>PX*hp"
COLUMNS = (
    *("AbsRel", "δ<1.25", "AbsRel, last", "AbsRel, each", "drift", "ATE", "RPE t 10", "RPE r 10"),
    *("local", "accuracy", "completeness"),
)
SHORT = 24
"""Frames within which a memory of as many has forgotten nothing."""


def mean(results: dict, memory: str, column: str, length: int, kind: str = "") -> float | None:
    """Return the mean over the videos of a kind, or all. None unless every video of the baseline is available."""
    of_kind = [name for name in results[STILL]["videos"] if name.startswith(kind)]
    videos = results[memory]["videos"]
    values = [videos.get(name, {}).get(length, {}).get(column) for name in of_kind]
    return statistics.mean(values) if values and None not in values else None


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def table(rows: list[str], columns: dict[str, Callable[[str], str]]) -> str:
    """Return a markdown table. columns: header and function of a row."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {LABELS.get(row, f'`{row}`')} | " + " | ".join(show(row) for show in columns.values()) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def series(results: dict, column: str, lengths, kind: str = "") -> Callable[[str], str]:
    return lambda row: " / ".join(number(mean(results, row, column, n, kind)) for n in lengths)


def wins(results: dict, column: str, length: int) -> Callable[[str], str]:
    """Return the number of videos with a smaller error than the default policy."""

    def show(row: str) -> str:
        usual = results[DEFAULT_POLICY]["videos"]
        return str(sum(results[row]["videos"][name][length][column] < usual[name][length][column] for name in usual))

    return show


def write(results: dict, arguments, network: str, patch_size: int, lengths: list[int]) -> None:
    rows = [row for row in results if any(mean(results, row, "tokens", n) is not None for n in lengths)]
    longest, tokens_per_frame = lengths[-1], special_and_patches(arguments.image_size, patch_size)

    def held(row: str) -> str:
        tokens = mean(results, row, "tokens", reached(row))
        return "–" if row == STILL else f"{tokens:.0f} ({tokens / tokens_per_frame:.1f})"

    def reached(row: str) -> int:
        return max((n for n in lengths if mean(results, row, "tokens", n) is not None), default=longest)

    def megabytes(row: str) -> str:
        size = mean(results, row, "bytes", reached(row))
        return "–" if row == STILL or size is None else f"{size / 1e6:.2f}"

    joined = " / ".join(map(str, lengths))
    compared = [n for n in (SHORT, *lengths) if n <= arguments.keep_all_frames]
    videos = results[STILL]["videos"]
    text = f"# Long streams: {arguments.weights} ({network})\n\n"
    text += f"Means over {len(videos)} videos ({', '.join(videos)})"
    text += f", every {arguments.stride}th frame.\n\n" if arguments.stride > 1 else ".\n\n"
    text += "**Cost, and quality as the stream grows**\n\n" + table(
        rows,
        {
            "tokens a layer (frames)": held,
            "MB": megabytes,
            "ms": lambda row: number(results[row].get("ms"), 1),
            f"AbsRel at {joined}": series(results, "AbsRel", lengths),
            f"ATE at {joined}": series(results, "ATE", lengths),
            f"unlike `all` at {' / '.join(map(str, compared))}": series(results, "unlike all", compared),
        },
    )
    full = [row for row in rows if reached(row) == longest]
    text += f"\n\n**At {longest} frames**\n\n" + table(
        full,
        {column: series(results, column, [longest]) for column in COLUMNS},
    )
    for what in ("AbsRel", "ATE", "excess spread", "local", "completeness"):
        text += f"\n\n**{what} at {longest} frames, by kind of video**\n\n" + table(
            full,
            {kind: series(results, what, [longest], kind) for kind in arguments.kinds},
        )
    if DEFAULT_POLICY in full:
        text += f"\n\n**In how many of the {len(videos)} videos better than `{DEFAULT_POLICY}`, {longest} frames**\n\n"
        text += table(full, {what: wins(results, what, longest) for what in ("AbsRel", "drift", "ATE", "local")})
    text += f"\n\n{LEGEND}"
    text += f"\n\n![curves]({arguments.out.name}.png)"
    arguments.out.with_suffix(".json").write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    publish([text], arguments.out.with_suffix(".md"), torch.device("cpu"))
    draw(results, rows, lengths, arguments.out.with_suffix(".png"))


LEGEND = """\
AbsRel, δ<1.25: depth with one scale for the stream; last: of its last 100 frames; each: with a scale for each frame;
drift: deviation of the logarithm of those scales. ATE: of the camera centers after a similarity, over their true
spread: 1 is a camera that never moves. RPE: of the motion within 10 frames, meters and degrees. local: distance of
the points of depth and cameras from the ground truth after one similarity per 50 frames, meters. accuracy,
completeness: the same points after one similarity, to the nearest true one and back. excess spread: of the cameras,
minus the true one, meters with the scale of depth. unlike `all`: difference of depth, as AbsRel. tokens: of a layer
after the last frame. ms: processor time of a step of one stream with all heads after 200 frames, median of 40."""


def special_and_patches(image_size, patch_size: int) -> int:
    return 5 + (image_size[0] // patch_size) * (image_size[1] // patch_size)


def draw(results: dict, rows: list[str], lengths: list[int], path: Path) -> None:
    """Plot the error against the frame index, and against the cached tokens at the end."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    families = sorted({row.split(":")[0] for row in rows})
    for line, column in zip(axes, ("AbsRel", "ATE"), strict=True):
        for row in rows:
            family = families.index(row.split(":")[0])
            style = {"color": f"C{family}", "marker": MARKERS[family], "label": row}
            known = [(n, value) for n in lengths if (value := mean(results, row, column, n)) is not None]
            if not known:
                continue
            budgets = [other for other in rows if other.split(":")[0] == row.split(":")[0]]
            width = 2.4 / (1 + budgets.index(row))
            line[0].plot(*zip(*known, strict=True), lw=width, **style)
            tokens = mean(results, row, "tokens", known[-1][0])
            if row != STILL and known[-1][0] == lengths[-1]:
                line[1].scatter(tokens, known[-1][1], **{k: v for k, v in style.items() if k != "label"})
                line[1].annotate(row, (tokens, known[-1][1]), fontsize=7, xytext=(3, 3), textcoords="offset points")
        line[0].set(xlabel="frames", ylabel=column, xscale="log", title=f"{column} of the first frames")
        line[1].set(xlabel="tokens a layer holds", ylabel=column, title=f"{column} at {lengths[-1]} frames")
    axes[0, 0].legend(fontsize=6, ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
