"""Effect of submaps and loop closure on long streams of a network and of a simulated model with drift.

    python benchmarks/submaps.py --out benchmarks/submaps

writes OUT.md (tables, command, machine) and OUT.png (trajectories from above and clouds). The outputs of each setting
and video are stored in --folder, so that the command resumes an interrupted run. Times are CPU time of this thread.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from environment_info import output_path, publish
from tqdm import tqdm

sys.path.append(str(Path(__file__).parents[1]))  # the repository, for experiments
from experiments.long_streams import (
    FRAME_STRIDE,
    SPACING,
    GroundTruth,
    StreamOutputs,
    load,
    load_ground_truth,
    save,
    score,
)
from experiments.simulated_model import Errors, GroundTruthVideo, SimulatedModel
from streamvggt import StreamSession, SubmapOptions, SubmapSession, load_model
from streamvggt.evaluation.pose_metrics import align_trajectory
from streamvggt.files import atomic_write
from streamvggt.flags import some_path, whole
from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import Cameras, invert_pose
from streamvggt.geometry.pointmap import unproject
from streamvggt.model.fingerprint import fingerprint
from streamvggt.prediction import Prediction
from streamvggt.stream.policy import parse_policy
from streamvggt.stream.submaps.loop_closure import LoopClosureOptions
from streamvggt.stream.submaps.submap_graph import apply_corrections

DRIFT = Errors(
    rotation_drift_deg=0.03,
    drift_scale=0.0002,
    random_walk=0.001,
    drift_doubling_frames=200,
    noise=0.05,
    outlier_ratio=0.1,
)
"""Drift of 0.03° and 0.02 % per frame, more for longer streams, depth noise and patches of wrong depth."""
COLUMNS = ("ATE", "RPE t 10", "RPE r 10", "AbsRel", "AbsRel, last", "drift", "accuracy", "completeness")
NUM_CLOUD = 60_000


@dataclass(frozen=True)
class Setting:
    """Setting of a run. Without `size`: one stream."""

    memory: str
    size: str | None = None
    loops: bool = False

    def __str__(self) -> str:
        submaps = f"submaps {self.size} of {self.memory}" if self.size else f"one stream, {self.memory}"
        return submaps + (", loops" if self.loops else "")

    def session(self, model) -> StreamSession | SubmapSession:
        options = {"policy": parse_policy(self.memory), "heads": ("camera", "depth")}
        if self.size is None:
            return StreamSession(model, **options)
        return SubmapSession(
            model,
            submaps=SubmapOptions.parse(self.size),
            loop_closure=LoopClosureOptions() if self.loops else None,
            **options,
        )


SETTINGS = [
    Setting("window:1,8"),
    *(Setting("all", size, loops) for size in ("16,4",) for loops in (False, True)),
    *(Setting("window:1,8", "60,15", loops) for loops in (False, True)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--videos", nargs="+", default=["loop:8", "revisit:7"], help="kind and scene of long_streams")
    parser.add_argument("--frames", type=whole(), default=2000)
    parser.add_argument("--image-size", type=whole(1, 16_384), nargs=2, metavar=("H", "W"), default=(80, 112))
    parser.add_argument("--folder", type=some_path, default=Path("results/submaps"), help="folder of stored outputs")
    parser.add_argument("--truth", type=some_path, help="rendered videos are kept here (default: in --folder)")
    parser.add_argument("--out", type=output_path, required=True)
    arguments = parser.parse_args()
    device = torch.device("cpu")
    model = load_model(arguments.weights, causal=True, heads=("camera", "depth"), device=device)

    lines = ["# Submaps and loops", "", __doc__.splitlines()[0], ""]
    figure, axes = plt.subplots(
        2 * len(arguments.videos), 4, figsize=(18, 9 * len(arguments.videos)), squeeze=False, layout="constrained"
    )
    row = 0
    for video in arguments.videos:
        kind, scene = video.split(":")
        truth = load_ground_truth(
            kind, int(scene), arguments.frames, *arguments.image_size, arguments.truth or arguments.folder / "truth"
        )
        known = GroundTruthVideo(
            truth.images.float() / 255, truth.depth.float(), truth.cam_from_world, truth.intrinsics
        )
        networks = {arguments.weights: model, "simulated": SimulatedModel(known, DRIFT, encoder=model)}
        for name, network in networks.items():
            outputs = {}
            lines += [f"## {name}, {video}, {arguments.frames} frames", "", *header()]
            for setting in SETTINGS:
                place = arguments.folder / (fingerprint(model) if name != "simulated" else "simulated")
                place = place / f"{kind}-{scene}-{arguments.frames}-{str(setting).replace(':', '_').replace(' ', '-')}"
                outputs[setting], counts = run(network, setting, truth, place, f"{name}, {video}, {setting}")
                lines.append(line(setting, score(outputs[setting], truth), counts))
            lines.append("")
            best = min(
                (setting for setting in SETTINGS if setting.loops),
                key=lambda setting: score(outputs[setting], truth)["ATE"],
            )
            draw(axes[row], f"{name}, {video}", truth, outputs, best)
            row += 1
    figure.savefig(arguments.out.with_suffix(".png"), dpi=60)
    lines += [f"![trajectories from above, and clouds]({arguments.out.name}.png)", "", *legend()]
    publish(lines, arguments.out.with_suffix(".md"), device)


def run(
    network, setting: Setting, truth: GroundTruth, place: Path, name: str
) -> tuple[StreamOutputs, dict[str, float]]:
    """Outputs of a setting for a video, corrected at the end if loops were closed, and their cost."""
    answers, notes = place.with_suffix(".npz"), place.with_suffix(".json")
    if answers.exists() and notes.exists():
        return load(StreamOutputs, answers), json.loads(notes.read_text(encoding="utf-8"))
    session = setting.session(network)
    poses, depth, times, sizes = [], [], [], []
    for number, image in enumerate(tqdm(truth.images, desc=name, unit="frame", mininterval=10)):
        begun = time.thread_time()
        outputs = session.push(image.to(next(network.parameters()).dtype) / 255)
        times.append((time.thread_time() - begun) * 1000)
        poses.append(outputs.cam_from_world_enc[0, 0].float())
        if number % FRAME_STRIDE == 0:
            depth.append(outputs.depth[0, 0, ..., 0].float())
        sizes.append(session.num_bytes)
    counts = {"ms": float(np.mean(times)), "p95": float(np.percentile(times, 95)), "most": max(times)}
    counts |= {"MB": max(sizes) / 1e6, "MB, end": sizes[-1] / 1e6}
    pose_enc, frames = torch.stack(poses), torch.arange(0, len(poses), FRAME_STRIDE)
    depth = torch.stack(depth)
    if isinstance(session, SubmapSession):
        begun = time.thread_time()
        session.finish()
        counts["finish"] = (time.thread_time() - begun) * 1000
        statistics = session.statistics()
        counts |= {
            name: getattr(statistics, name)
            for name in (
                "num_submaps",
                "num_restarts",
                "num_pose_alignments",
                "num_false_failures",
                "num_loops",
                "num_rejected_loops",
            )
        }
        counts["rejected"] = [loop.reason for loop in statistics.rejected_loops]
        size = tuple(truth.images.shape[-2:])
        ones = torch.ones(1, len(poses), 1, 1, 1, dtype=torch.float64)
        moved = apply_corrections(Prediction(size, pose_enc=pose_enc[None], depth=ones), session.corrections())
        pose_enc = moved.pose_enc[0]
        depth = depth * moved.depth[0, frames, :, :, 0].float()
    result = StreamOutputs(pose_enc, frames, depth.half(), torch.zeros(len(poses)), torch.tensor(sizes))
    place.parent.mkdir(parents=True, exist_ok=True)
    save(result, answers)
    with atomic_write(notes) as unfinished:
        unfinished.write_text(json.dumps(counts), encoding="utf-8")
    return result, counts


def header() -> list[str]:
    names = ["", *COLUMNS, "ms", "ms, p95", "ms, most", "MB", "submaps", "restarts", "loops", "rejected"]
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def line(setting: Setting, numbers: dict[str, float], counts: dict) -> str:
    cells = [str(setting), *(f"{numbers[column]:.3f}" for column in COLUMNS)]
    cells += [f"{counts[name]:.0f}" for name in ("ms", "p95", "most")] + [f"{counts['MB']:.1f}"]
    for name in ("num_submaps", "num_restarts", "num_loops", "num_rejected_loops"):
        cells.append(str(counts[name]) if name in counts else "")
    return f"| {' | '.join(cells)} |"


def legend() -> list[str]:
    return [
        "ATE: over the spread of the camera's true places, 1 is a camera that never moves. RPE: of the motion within",
        "10 frames, meters and degrees. AbsRel: one scale for the stream; last: of the last 100 frames; drift:",
        "deviation of the frames' own scales (logarithm). accuracy, completeness: meters, of 40 frames' points. Loops",
        "are corrected at the end of the stream. ms, MB: per frame, processor time of the mean, 95th percentile and",
        "worst frame; the most memory at any time, keyframes included.",
        "",
        f"The simulated model adds these errors to ground-truth cameras and depth: {DRIFT}.",
        "Its features are the network's encoder's.",
        "It shows the effect of alignment and loop closure, not the quality of a network.",
    ]


def draw(axes, title: str, truth: GroundTruth, outputs: dict[Setting, StreamOutputs], best: Setting) -> None:
    """Plot trajectories from above, and clouds of the first and the best setting, beside the ground truth."""
    plain, without = SETTINGS[0], Setting(best.memory, best.size)
    true = invert_pose(truth.cam_from_world.double())[:, :, 3]
    axes[0].plot(true[:, 0], true[:, 2], "k", lw=3, alpha=0.4, label="truth")
    for setting in (plain, without, best):
        ours, _ = align_trajectory(outputs[setting].cameras.cam_from_world, truth.cam_from_world)
        axes[0].plot(ours[:, 0, 3], ours[:, 2, 3], lw=1, label=str(setting))
    axes[0].legend(fontsize=8)
    axes[0].set_title(f"{title}: trajectories from above")
    frames = outputs[plain].frames
    cameras = Cameras(truth.cam_from_world[frames], truth.intrinsics.expand(len(frames), 3, 3))
    points = unproject(truth.depth[frames].float(), cameras)[:, ::SPACING, ::SPACING]
    cloud(axes[3], "truth", truth, frames, points, points)
    cloud(axes[1], str(plain), truth, frames, outputs[plain].points(), points)
    cloud(axes[2], str(best), truth, frames, outputs[best].points(), points)
    shown = torch.cat([points.flatten(0, 2).double(), true])
    limits = [(x.min() - 0.5, x.max() + 0.5) for x in (shown[:, 0], shown[:, 2])]
    for axis in axes:
        axis.set_xlim(limits[0])
        axis.set_ylim(limits[1])
        axis.set_aspect("equal")


def cloud(axis, title: str, truth: GroundTruth, frames, points, gt_points) -> None:
    """Plot aligned points from above, without the ceiling."""
    colors = truth.images[frames].movedim(1, -1)[:, ::SPACING, ::SPACING].flatten(0, 2).float() / 255
    flat, true_flat = points.flatten(0, 2).double(), gt_points.flatten(0, 2).double()
    moved = align_points(flat, true_flat, symmetric=True).apply(flat)
    low = true_flat[:, 1].quantile(0.3)  # y looks down
    chosen = torch.linspace(0, len(moved) - 1, NUM_CLOUD).long()
    chosen = chosen[(moved[chosen, 1] > low) & moved[chosen].isfinite().all(-1)]
    chosen = chosen[moved[chosen, 1].argsort(descending=True)]  # what is higher is drawn over what is lower
    axis.scatter(moved[chosen, 0], moved[chosen, 2], s=1, c=colors[chosen].numpy(), lw=0)
    axis.set_title(title)


if __name__ == "__main__":
    main()
