"""Base of the monocular and video depth protocols: a program that predicts and a program that scores.

The protocols differ in the grouping of images, the location of predictions, and the scope of the alignment.
"""

from __future__ import annotations

import argparse
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from streamvggt.datasets._depth_set import DepthSet
from streamvggt.datasets.sintel import TRAJECTORY_SEQUENCES, Sintel
from streamvggt.evaluation.depth_metrics import METRICS, weighted_mean
from streamvggt.evaluation.depth_sets import DEPTH_SETS, published
from streamvggt.evaluation.images import load_image
from streamvggt.evaluation.jobs import Job, load_prediction, save_array
from streamvggt.evaluation.parallel import thread_map
from streamvggt.evaluation.protocol import Protocol, Run, Task, select_scenes
from streamvggt.evaluation.run_metadata import read_run, write_scores
from streamvggt.evaluation.runner import ModelRunner
from streamvggt.files import atomic_write
from streamvggt.words import counted

Scores = tuple[Mapping[str, float], int]
"""Metrics and number of evaluated pixels."""


@dataclass(frozen=True)
class EvalSequence(Job):
    """Frames that the model processes together, and the files of their predictions."""

    scene: str
    frames: Sequence[str]


class DepthProtocol(Protocol):
    """A depth protocol.

    Attributes:
        alignments: Names in `depth_alignment.ALIGNMENTS`. The first is the default.
    """

    alignments: ClassVar[tuple[str, ...]]

    @abstractmethod
    def clips(self, reader: DepthSet, scene: str, folder: Path, stride: int) -> list[EvalSequence]:
        """Return the sequences of a scene."""

    @abstractmethod
    def score_clips(
        self, reader: DepthSet, clips: Sequence[EvalSequence], alignments: Sequence[str]
    ) -> dict[str, list[Scores]]:
        """Return for each alignment the metrics of each aligned unit."""

    @abstractmethod
    def result_name(self, alignment: str) -> str:
        """Return the name of the result file, as in the reference implementation."""

    def open_reader(self, dataset: str, data_root: Path) -> DepthSet:
        return DEPTH_SETS[dataset](data_root)

    def predict_all(self, tasks: Sequence[Task], run: Run) -> list[Task]:
        opened = super().predict_all(tasks, run)
        if run.arguments.status_file and run.processes.is_main:
            run.arguments.status_file.write_text(" ".join(task.dataset for task in opened) + "\n", encoding="utf-8")
        return opened

    def load_network(self, arguments: argparse.Namespace) -> ModelRunner:
        return ModelRunner.load(arguments, heads=("depth",))

    def settings(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> dict[str, Any]:
        return {"stride": arguments.stride, "crop": arguments.crop, "data": str(task.reader.root.resolve())}

    def more_metadata(self, arguments: argparse.Namespace) -> dict[str, Any]:
        return {"data_root": str(arguments.data_root.resolve())}

    def jobs(self, task: Task, arguments: argparse.Namespace) -> list[EvalSequence]:
        scenes = [self.clips(task.reader, scene, task.folder, arguments.stride) for scene in task.scenes]
        return [clip for clips in scenes for clip in clips]

    def predictor(
        self, task: Task, network: ModelRunner, arguments: argparse.Namespace
    ) -> Callable[[EvalSequence], None]:
        read = partial(load_image, size=network.size, patch_size=network.model.patch_size, crop=arguments.crop)

        def predict(clip: EvalSequence) -> None:
            images = thread_map(read, [task.reader.image_path(clip.scene, frame) for frame in clip.frames], 2)
            for path, prediction in zip(clip.paths, network.predict(images), strict=True):
                save_array(path, prediction.depth[0, 0, ..., 0].float().numpy())

        return predict

    def to_score(self, task: Task, arguments: argparse.Namespace) -> Task:
        """Return the task with the requested sequences, else all.

        Predictions of Sintel by another program have no run record. For these the rule of the reference implementation
        applies: up to 643 files are the fourteen sequences, more files are all sequences.
        """
        reader, folder = task.reader, task.folder
        if not folder.is_dir():
            raise ValueError(f"no predictions in {folder}: run launch.py first")
        paths = {}
        for scene in reader.scenes:
            paths[scene] = [path for clip in self._recorded_clips(task, scene) for path in clip.paths]
        scenes = select_scenes(reader, arguments.seq_list)
        if arguments.seq_list is None and isinstance(reader, Sintel) and read_run(folder) is None:
            num_there = sum(path.exists() for parts in paths.values() for path in parts)
            if num_there <= 643:
                scenes = [scene for scene in scenes if scene in TRAJECTORY_SEQUENCES]
                print(
                    f"{folder} has {num_there} predictions and no run.json: scored as the fourteen sequences of Sintel"
                )
        missing = [path for scene in scenes for path in paths[scene] if not path.exists()]
        if missing:
            total = sum(len(paths[scene]) for scene in scenes)
            raise ValueError(
                f"{len(missing)} of {total} predictions are missing, the first is {missing[0]}: run launch.py again, "
                "it resumes; or name the sequences to score with --seq_list"
            )
        return replace(task, scenes=scenes)

    def score(self, task: Task, scene: str, arguments: argparse.Namespace) -> dict[str, list[Scores]]:
        return self.score_clips(task.reader, self._recorded_clips(task, scene), arguments.align)

    def summarize(
        self, task: Task, scores: Mapping[str, dict[str, list[Scores]]], arguments: argparse.Namespace
    ) -> None:
        num_frames = sum(len(clip.frames) for scene in scores for clip in self._recorded_clips(task, scene))
        whole_set = published(task.reader)
        for alignment in arguments.align:
            by_scene = {scene: found[alignment] for scene, found in scores.items()}
            numbers = weighted_mean([scored for parts in by_scene.values() for scored in parts])
            path = task.folder / self.result_name(alignment)
            with atomic_write(path) as unfinished:
                unfinished.write_text(json.dumps({name: numbers[name] for name in METRICS}), encoding="utf-8")
            write_scores(
                task.folder,
                alignment,
                numbers,
                {scene: weighted_mean(parts) for scene, parts in by_scene.items() if any(n for _, n in parts)},
                num_sequences=len(scores),
                num_frames=num_frames,
                num_published=[whole_set.num_scenes, whole_set.num_frames],
                data=task.reader.root,
            )
            print_scores(task.dataset, path, numbers, len(scores), num_frames, task.reader)

    def _recorded_clips(self, task: Task, scene: str) -> list[EvalSequence]:
        """Return the sequences of a scene with the stride of the predictions."""
        run = read_run(task.folder)
        return self.clips(task.reader, scene, task.folder, run["settings"].get("stride", 1) if run else 1)


def load_pair(reader: DepthSet, scene: str, frame: str, path: Path) -> tuple[Tensor, Tensor]:
    """Load a prediction, resized to the ground truth as in the reference code, and the ground truth. (H, W) each"""
    true = reader.depth(scene, frame)
    predicted = load_prediction(path)
    if predicted.ndim != 2 or not np.isfinite(predicted).all():
        raise ValueError(f"{path} contains no finite depth (H, W), but {predicted.dtype} {predicted.shape}")
    height, width = true.shape
    resized = cv2.resize(predicted.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(resized), true


def print_scores(
    dataset: str, path: Path, numbers: Mapping[str, float], num_scenes: int, num_frames: int, reader: DepthSet
) -> None:
    """Print one line of metrics, and a second line if the test set is incomplete."""
    print(f"{dataset:8} Abs Rel {numbers['Abs Rel']:.4f}  δ < 1.25 {100 * numbers['δ < 1.25']:.2f} %  → {path}")
    scenes, frames = published(reader).num_scenes, published(reader).num_frames
    if num_scenes != scenes or num_frames != (frames or num_frames):
        whole = f"{scenes} sequences" + (f" with {frames} frames" if frames else "")
        ours = f"{counted(num_scenes, 'sequence')} with {counted(num_frames, 'frame')}"
        print(f"{'':8} of {ours}; published numbers are of {whole}")
