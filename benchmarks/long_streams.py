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
from pathlib import Path

import torch
from environment_info import output_path
from long_streams_report import SHORT, STILL, write
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
from streamvggt.flags import some_path, whole
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.fingerprint import fingerprint
from streamvggt.stream.policy import parse_policy

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
    parser.add_argument("--frames", type=whole(), default=2000, help="of the video")
    parser.add_argument(
        "--stride", type=whole(), default=1, help="take every n-th of them: a fast camera, or few pictures"
    )
    parser.add_argument("--lengths", type=whole(), nargs="+", default=LENGTHS, help="first frames to score")
    parser.add_argument("--keep-all-frames", type=whole(), default=500, help="where `all` stops")
    parser.add_argument("--image-size", type=whole(1, 16_384), nargs=2, metavar=("H", "W"), default=(80, 112))
    parser.add_argument(
        "--folder", type=some_path, default=Path("results/long-streams"), help="folder of stored outputs"
    )
    parser.add_argument("--pictures", nargs="*", default=(), help="policies to draw: OUT-KIND.jpg")
    parser.add_argument("--tables-only", action="store_true", help="run nothing")
    parser.add_argument("--out", type=output_path, required=True)
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


if __name__ == "__main__":
    main()
