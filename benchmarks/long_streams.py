"""Measure the quality of bounded memories: policies and budgets on streams of thousands of frames.

    python benchmarks/long_streams.py --out benchmarks/long-streams

writes OUT.md (tables, command, machine), OUT.png (curves), OUT.json (all numbers) and OUT-KIND.jpg of the first video
of each kind. The outputs of each policy and stream are stored in --folder, so that the command resumes an interrupted
run and scores other lengths without running a model. `--tables-only` writes the tables of the stored outputs.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from environment_info import publish
from tqdm import tqdm

sys.path.append(str(Path(__file__).parents[1]))  # the repository, for experiments
from experiments.long_streams import (
    KINDS,
    SCENES,
    GroundTruth,
    StreamOutputs,
    disagreement,
    load,
    load_ground_truth,
    save,
    score,
    still_camera,
    stream,
)
from experiments.stream_figure import draw_streams
from streamvggt import KeepAll, StreamSession, TokenDiversity, load_model
from streamvggt.files import atomic_write
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.fingerprint import fingerprint
from streamvggt.stream.policy import DEFAULT_POLICY, parse_policy

# Budgets of about 9 and about 24 frames first, then others.
POLICIES = (
    *(
        "window:1,8",
        "all",
        "keyframes:8,9",
        "saliency:7",
        "selective:7",
        "frame-diversity:9",
        "window:0,0",
        "window:1,8,64",
    ),
    *(
        "motion-keyframes:20,9",
        "token-diversity:7",
        "window:1,23",
        "keyframes:8,24",
        "saliency:22",
        "selective:22",
        "frame-diversity:24",
    ),
    *("motion-keyframes:20,24", "token-diversity:22", "window:1,4", "window:1,16", "keyframes:30,9"),
)
LENGTHS = (100, 500, 2000)
STILL = "constant depth, static camera"
LABELS = {STILL: STILL, "window:0,0": "`window:0,0` (only the current frame)"}
MARKERS = "osD^v<>PX*hp"
COLUMNS = (
    *("AbsRel", "δ<1.25", "AbsRel, last", "AbsRel, each", "drift", "ATE", "RPE t 10", "RPE r 10"),
    *("local", "accuracy", "completeness"),
)
SHORT = 24
"""Frames within which a memory of as many has forgotten nothing."""
TIMED, WARM = 40, 200
"""Steps that are timed, and the frames after which, for a memory that is full."""


def main() -> None:
    parser = command_line()
    arguments = parser.parse_args()
    try:
        policies = {memory: parse_policy(memory) for memory in arguments.policies}
    except ValueError as error:
        parser.error(str(error))

    model = load_model(arguments.weights, causal=True, heads=("camera", "depth"))
    truths = arguments.folder / "truth"
    outputs = arguments.folder / fingerprint(model)
    videos = [(kind, SCENES[kind][i]) for i in range(arguments.scenes) for kind in arguments.kinds]

    def truth(kind: str, scene: int) -> GroundTruth:
        return load_ground_truth(kind, scene, arguments.frames, *arguments.image_size, truths).every(arguments.stride)

    def length(memory: str) -> int:
        bounded = not isinstance(policies[memory], KeepAll)
        num_frames = -(-arguments.frames // arguments.stride)
        return num_frames if bounded else min(num_frames, arguments.keep_all_frames)

    def path(kind: str, scene: int, memory: str) -> Path:
        every = f"-every-{arguments.stride}" if arguments.stride > 1 else ""
        return outputs / f"{kind}-{scene}-{length(memory)}{every}-{memory.replace(':', '_')}.npz"

    if not arguments.tables_only:
        for memory, policy in policies.items():
            missing = [v for v in videos if not path(*v, memory).exists()]
            for together in groups(missing, policy):
                images = torch.stack([truth(*video).images[: length(memory)] for video in together])
                name = f"{memory}, {' '.join(kind for kind, _ in together)}"
                for video, one in zip(together, stream(model, images, policy, name), strict=True):
                    save(one, path(*video, memory))
            if not times_file(outputs, memory).exists():
                measured = step_times(model, policy, truth(*videos[0]).images, WARM)
                with atomic_write(times_file(outputs, memory)) as unfinished:
                    unfinished.write_text(json.dumps(measured), encoding="utf-8")

    lengths = [n for n in arguments.lengths if n * arguments.stride <= arguments.frames]
    results = scores(videos, list(policies), truth, path, lengths)
    for memory in policies:
        if (times := times_file(outputs, memory)).exists():
            results[memory]["ms"] = statistics.median(json.loads(times.read_text(encoding="utf-8")))
    write(results, arguments, fingerprint(model), model.patch_size, lengths)
    for kind, scene in videos[: len(arguments.kinds)]:
        stored = {memory: path(kind, scene, memory) for memory in arguments.pictures}
        shown = {memory: load(StreamOutputs, file) for memory, file in stored.items() if file.exists()}
        if shown:
            picture = arguments.out.with_name(f"{arguments.out.name}-{kind}.jpg")
            draw_streams(truth(kind, scene), shown, picture)


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--policies", nargs="+", default=POLICIES, help="as of --policy; see docs/streaming.md")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--scenes", type=int, choices=(1, 2, 3, 4), default=2, help="of each kind")
    parser.add_argument("--frames", type=int, default=2000, help="of the video")
    parser.add_argument("--stride", type=int, default=1, help="take every n-th of them: a fast camera, or few pictures")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="first frames to score")
    parser.add_argument("--keep-all-frames", type=int, default=500, help="where `all` stops")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("H", "W"), default=(80, 112))
    parser.add_argument("--folder", type=Path, default=Path("results/long-streams"), help="folder of stored outputs")
    parser.add_argument("--pictures", nargs="*", default=(), help="policies to draw: OUT-KIND.jpg")
    parser.add_argument("--tables-only", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def times_file(folder: Path, memory: str) -> Path:
    return folder / f"ms-{memory.replace(':', '_')}.json"


def groups(videos: list, policy: EvictionPolicy) -> list[list]:
    """Return the streams that advance in one batch, if the policy decides per stream; otherwise single streams."""
    if not videos:
        return []
    for_each = policy.is_index_based or (policy.is_token_level and not isinstance(policy, TokenDiversity))
    return [videos] if for_each else [[video] for video in videos]


def step_times(model, policy: EvictionPolicy, images: torch.Tensor, warm: int) -> list[float]:
    """Return the CPU milliseconds of steps of one stream with all heads and a full memory."""
    session = StreamSession(model, policy=policy)
    all_heads, times = model.heads, []
    for number in range(warm + TIMED):
        session.heads = all_heads if number >= warm else ("camera", *policy.required_heads)
        image = images[number % len(images)].float() / 255
        began = time.process_time()
        session.push(image)
        times.append(1000 * (time.process_time() - began))
    return times[warm:]


def scores(videos, memories: list[str], truth, path, lengths: list[int]) -> dict:
    """Return {policy: {"videos": {"kind-scene": {length: numbers}}}} of the stored outputs."""
    results = {memory: {"videos": {}} for memory in (STILL, *memories)}
    for kind, scene in tqdm(videos, desc="scoring", unit="video", disable=None):
        true = truth(kind, scene)
        has_all = "all" in memories and path(kind, scene, "all").exists()
        reference = load(StreamOutputs, path(kind, scene, "all")) if has_all else None
        for memory in (STILL, *memories):
            if memory == STILL:
                one = still_camera(true)
            elif path(kind, scene, memory).exists():
                one = load(StreamOutputs, path(kind, scene, memory))
            else:
                continue
            per_length = results[memory]["videos"].setdefault(f"{kind}-{scene}", {})
            for n in (SHORT, *lengths):
                if n > len(one.pose_enc):
                    continue
                per_length[n] = score(one.first(n), true.first(n)) if n in lengths else {}
                if reference is not None and memory != STILL and n <= len(reference.pose_enc):
                    per_length[n]["unlike all"] = disagreement(one.first(n), reference.first(n))
    return results


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


if __name__ == "__main__":
    main()
