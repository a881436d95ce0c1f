"""Camera trajectories on Sintel, TUM-dynamics and ScanNet: ATE and RPE after the best similarity.

    <folder>/<sequence>.npz           poses the network says, camera-from-world, and the true ones
    <folder>/<sequence>-aligned.npz   both ways in the true world, for pictures
    <folder>/result.json              ATE, RPE trans, RPE rot: means over the sequences

S frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from streamvggt.datasets._trajectory_set import TrajectorySet
from streamvggt.datasets.scannetv2 import ScanNetTrajectories
from streamvggt.datasets.sintel import FOURTEEN, SintelTrajectories
from streamvggt.datasets.tum import Tum
from streamvggt.evaluation.chosen import add_data_arguments, check_output_dir, chosen_scenes
from streamvggt.evaluation.images import load_image
from streamvggt.evaluation.network import Evaluated, add_network_arguments
from streamvggt.evaluation.parallel import in_threads
from streamvggt.evaluation.pose_metrics import align_trajectory, trajectory_errors
from streamvggt.evaluation.processes import Processes
from streamvggt.evaluation.record import open_run, read_run, write_json, write_scores
from streamvggt.evaluation.work import Outcome, load_prediction, save_arrays, work_through
from streamvggt.flags import whole
from streamvggt.words import counted

SETS: dict[str, type[TrajectorySet]] = {"sintel": SintelTrajectories, "tum": Tum, "scannet": ScanNetTrajectories}
NUM_PUBLISHED = {"sintel": len(FOURTEEN), "tum": 8, "scannet": 100}
"""Sequences of published results."""


@dataclass(frozen=True)
class Task:
    """One test set and the folder of its result."""

    dataset: str
    reader: TrajectorySet
    sequences: list[str]
    folder: Path


def main(argv: Sequence[str] | None = None) -> int:
    """launch.py: predict, then score from the files. The exit status is 1 if a test set or sequence is missing."""
    with Processes() as processes:
        return evaluate(parse(argv), processes)


def evaluate(arguments: argparse.Namespace, processes: Processes) -> int:
    outcome = Outcome(processes)
    tasks = []
    for dataset in arguments.eval_dataset:
        with outcome.of(f"{dataset} is skipped", everywhere=True):
            tasks.append(find_task(dataset, arguments))
    to_score = tasks
    if not arguments.score_only and tasks:
        network = Evaluated.load(arguments, heads=("camera",))
        to_score = []
        for task in tasks:
            with outcome.of(task.dataset, everywhere=True):
                predict(task, network, arguments, processes, outcome)
                to_score.append(task)
    processes.wait()
    for task in to_score:
        with outcome.of(task.dataset, everywhere=True):
            if task.folder.is_dir():
                processes.claim(task.folder)
            if processes.is_main:
                score(task)
    return outcome.finish()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_arguments(parser, list(SETS), list(SETS), "../eval_results/trajectory/{data}_{model_name}")
    parser.add_argument("--pose_eval_stride", type=whole(), default=1, help="take every n-th frame (default: 1)")
    parser.add_argument("--crop", action="store_true", help="crop to whole patches instead of resizing once more")
    parser.add_argument("--score_only", action="store_true", help="of what is predicted already, without the network")
    add_network_arguments(parser)
    arguments = parser.parse_args(argv)
    if arguments.pose_eval_stride < 1:
        raise ValueError(f"--pose_eval_stride {arguments.pose_eval_stride}: at least 1 was expected")
    check_output_dir(arguments)
    return arguments


def find_task(dataset: str, arguments: argparse.Namespace) -> Task:
    """
    Raises:
        FileNotFoundError, ValueError: the test set or a sequence asked for is not there.
    """
    reader = SETS[dataset](arguments.data_root)
    scenes = chosen_scenes(reader, arguments.seq_list)
    folder = arguments.output_dir.format(data=dataset, model_name=arguments.model_name)
    return Task(dataset, reader, scenes, Path(folder))


def predict(
    task: Task, network: Evaluated, arguments: argparse.Namespace, processes: Processes, outcome: Outcome
) -> None:
    stride = arguments.pose_eval_stride
    settings = {"stride": stride, "crop": arguments.crop, "data": str(task.reader.root.resolve())}
    open_run(
        task.folder,
        protocol="trajectory",
        dataset=task.dataset,
        settings={**network.settings, **settings},
        about=network.about,
        processes=processes,
    )

    def make(sequence: str) -> None:
        true = task.reader.read(sequence)
        read = partial(load_image, size=network.size, patch_size=network.model.patch_size, crop=arguments.crop)
        cameras = network.predict_sequence(in_threads(read, true.images[::stride], num_threads=2)).cameras()
        save_arrays(
            task.folder / f"{sequence}.npz",
            cam_from_world=cameras.cam_from_world[0].float().numpy(),
            intrinsics=cameras.intrinsics[0].float().numpy(),
            frames=np.array([path.stem for path in true.images[::stride]]),
        )

    work_through(
        {name: [task.folder / f"{name}.npz"] for name in task.sequences}, make, processes, outcome, title=task.dataset
    )


def score(task: Task) -> None:
    """Numbers of all sequences, and their mean.

    Raises:
        ValueError: a prediction is missing or of other frames; there is never a mean over those that are there.
    """
    run = read_run(task.folder)
    stride = run["settings"]["stride"] if run else 1
    numbers, num_frames = {}, 0
    for sequence in task.sequences:
        true = task.reader.read(sequence)
        said = load_prediction(task.folder / f"{sequence}.npz")
        if said["frames"].tolist() != [path.stem for path in true.images[::stride]]:
            raise ValueError(
                f"the prediction of {sequence} is of other frames than {task.reader.root} has: predict again"
            )
        true_poses, poses = true.cam_from_world[::stride], torch.from_numpy(said["cam_from_world"]).double()
        if not poses.isfinite().all():
            raise ValueError(f"{sequence}: the network's poses are not finite")
        known = true_poses.isfinite().all(-1).all(-1)
        if known.sum() < 2:
            raise ValueError(f"{sequence}: fewer than two true poses are known")
        errors = trajectory_errors(poses[known], true_poses[known])
        numbers[sequence] = {"ATE": errors.ate, "RPE trans": errors.rpe_translation, "RPE rot": errors.rpe_rotation}
        num_frames += len(poses)
        ours, theirs = align_trajectory(poses[known], true_poses[known])
        save_arrays(
            task.folder / f"{sequence}-aligned.npz",
            world_from_cam=ours.numpy(),
            true_world_from_cam=theirs.numpy(),
            frames=said["frames"][known.numpy()],
        )
    means = {name: float(np.mean([one[name] for one in numbers.values()])) for name in next(iter(numbers.values()))}
    write_json(task.folder / "result.json", means)
    published = NUM_PUBLISHED[task.dataset]
    write_scores(
        task.folder,
        "Sim(3)",
        means,
        numbers,
        num_sequences=len(numbers),
        num_frames=num_frames,
        num_published=[published, None],
        data=task.reader.root,
    )
    text = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
    print(f"{task.dataset:8} {text}  → {task.folder / 'result.json'}")
    if len(numbers) != published:
        print(f"{'':8} of {counted(len(numbers), 'sequence')}; published numbers are of {published}")
