"""Camera trajectories on Sintel, TUM-dynamics and ScanNet: ATE and RPE after similarity alignment.

    <folder>/<sequence>.npz           predicted and ground-truth camera-from-world poses
    <folder>/<sequence>-aligned.npz   both trajectories in the ground-truth world, for figures
    <folder>/result.json              ATE, RPE trans, RPE rot: means over the sequences

S frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamvggt.datasets._trajectory_set import TrajectorySet
from streamvggt.datasets.scannetv2 import ScanNetTrajectories
from streamvggt.datasets.sintel import TRAJECTORY_SEQUENCES, SintelTrajectories
from streamvggt.datasets.tum import Tum
from streamvggt.evaluation.arguments import TRAJECTORY
from streamvggt.evaluation.images import load_image
from streamvggt.evaluation.jobs import Job, load_prediction, save_arrays
from streamvggt.evaluation.parallel import thread_map
from streamvggt.evaluation.pose_metrics import align_trajectory, trajectory_errors
from streamvggt.evaluation.protocol import Protocol, Task
from streamvggt.evaluation.run_metadata import read_run, write_json, write_scores
from streamvggt.evaluation.runner import ModelRunner
from streamvggt.words import counted

SETS: dict[str, type[TrajectorySet]] = {"sintel": SintelTrajectories, "tum": Tum, "scannet": ScanNetTrajectories}
NUM_PUBLISHED = {"sintel": len(TRAJECTORY_SEQUENCES), "tum": 8, "scannet": 100}
"""Number of sequences in the published results."""


@dataclass(frozen=True)
class TrajectoryScore:
    """Errors of a sequence by name, and its number of frames."""

    numbers: dict[str, float]
    num_frames: int


class Trajectories(Protocol):
    name = "trajectory"
    command_line = TRAJECTORY

    def open_reader(self, dataset: str, data_root: Path) -> TrajectorySet:
        return SETS[dataset](data_root)

    def load_network(self, arguments: argparse.Namespace) -> ModelRunner:
        return ModelRunner.load(arguments, heads=("camera",))

    def settings(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> dict[str, Any]:
        data = str(task.reader.root.resolve())
        return {"stride": arguments.pose_eval_stride, "crop": arguments.crop, "data": data}

    def predictor(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> Callable[[Job], None]:
        read = partial(load_image, size=network.size, patch_size=network.model.patch_size, crop=arguments.crop)

        def predict(job: Job) -> None:
            paths = task.reader.read(job.name).images[:: arguments.pose_eval_stride]
            cameras = network.predict_sequence(thread_map(read, paths, num_threads=2)).cameras()
            save_arrays(
                job.paths[0],
                cam_from_world=cameras.cam_from_world[0].float().numpy(),
                intrinsics=cameras.intrinsics[0].float().numpy(),
                frames=np.array([path.stem for path in paths]),
            )

        return predict

    def score(self, task: Task, scene: str, arguments: argparse.Namespace) -> TrajectoryScore:
        """Score a sequence and write both aligned trajectories."""
        run = read_run(task.folder)
        stride = run["settings"]["stride"] if run else 1
        true = task.reader.read(scene)
        prediction = load_prediction(self.prediction_path(task, scene))
        if prediction["frames"].tolist() != [path.stem for path in true.images[::stride]]:
            raise ValueError(f"its prediction is of other frames than {task.reader.root} has: predict again")
        true_poses = true.cam_from_world[::stride]
        poses = torch.from_numpy(prediction["cam_from_world"]).double()
        if not poses.isfinite().all():
            raise ValueError("the predicted poses are not finite")
        known = true_poses.isfinite().all(-1).all(-1)
        if known.sum() < 2:
            raise ValueError("fewer than two ground-truth poses are known")
        errors = trajectory_errors(poses[known], true_poses[known])
        ours, theirs = align_trajectory(poses[known], true_poses[known])
        save_arrays(
            task.folder / f"{scene}-aligned.npz",
            world_from_cam=ours.numpy(),
            true_world_from_cam=theirs.numpy(),
            frames=prediction["frames"][known.numpy()],
        )
        numbers = {"ATE": errors.ate, "RPE trans": errors.rpe_translation, "RPE rot": errors.rpe_rotation}
        return TrajectoryScore(numbers, len(poses))

    def summarize(self, task: Task, scores: Mapping[str, TrajectoryScore], arguments: argparse.Namespace) -> None:
        numbers = {sequence: score.numbers for sequence, score in scores.items()}
        names = next(iter(numbers.values()))
        means = {name: float(np.mean([one[name] for one in numbers.values()])) for name in names}
        write_json(task.folder / "result.json", means)
        num_published = NUM_PUBLISHED[task.dataset]
        write_scores(
            task.folder,
            "Sim(3)",
            means,
            numbers,
            num_sequences=len(scores),
            num_frames=sum(score.num_frames for score in scores.values()),
            num_published=[num_published, None],
            data=task.reader.root,
        )
        text = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
        print(f"{task.dataset:8} {text}  → {task.folder / 'result.json'}")
        if len(scores) != num_published:
            print(f"{'':8} of {counted(len(scores), 'sequence')}; published numbers are of {num_published}")


main = Trajectories().main
