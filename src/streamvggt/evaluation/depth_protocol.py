"""What monocular and video depth have in common: a program that predicts and a program that scores.

The protocols differ in which images the network sees together, where predictions lie, and what is aligned as one.
"""

from __future__ import annotations

import argparse
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from streamvggt.datasets._depth_set import DepthSet
from streamvggt.datasets.sintel import FOURTEEN, Sintel
from streamvggt.evaluation.chosen import add_data_arguments, check_output_dir, chosen_scenes
from streamvggt.evaluation.depth_metrics import METRICS, weighted_mean
from streamvggt.evaluation.depth_sets import DEPTH_SETS, published
from streamvggt.evaluation.images import load_image
from streamvggt.evaluation.network import Evaluated, add_network_arguments
from streamvggt.evaluation.parallel import in_threads
from streamvggt.evaluation.processes import Processes
from streamvggt.evaluation.record import open_run, read_run, write_scores
from streamvggt.evaluation.work import Outcome, load_prediction, save_array, work_through
from streamvggt.files import atomic_write
from streamvggt.flags import some_path, whole
from streamvggt.words import counted

Scored = tuple[Mapping[str, float], int]
"""Numbers, and how many pixels they are of."""


@dataclass(frozen=True)
class Clip:
    """Frames that the network sees together, and the files of their predictions."""

    name: str
    scene: str
    frames: Sequence[str]
    paths: Sequence[Path]


@dataclass(frozen=True)
class Task:
    """One test set and the folder of its result."""

    dataset: str
    reader: DepthSet
    folder: Path


class DepthProtocol(ABC):
    """One way to judge depth.

    name: of the folder in eval_results.
    datasets: of the published numbers; run if none is named.
    more_datasets: that can be run, too.
    alignments: names in `depth_metrics.ALIGNMENTS`; the first is the default.
    """

    name: ClassVar[str]
    datasets: ClassVar[tuple[str, ...]]
    more_datasets: ClassVar[tuple[str, ...]] = ("scannet",)
    alignments: ClassVar[tuple[str, ...]]

    @abstractmethod
    def clips(self, reader: DepthSet, scene: str, folder: Path, stride: int) -> list[Clip]:
        """What the network sees of a scene."""

    @abstractmethod
    def score(self, reader: DepthSet, clips: Sequence[Clip], alignments: Sequence[str]) -> dict[str, list[Scored]]:
        """Alignment → the numbers of what was aligned as one."""

    @abstractmethod
    def result_name(self, alignment: str) -> str:
        """Of the published file of numbers."""

    def predict_program(self, argv: Sequence[str] | None = None) -> int:
        """launch.py: the exit status is 1 if a test set or a sequence is missing in the end."""
        parser = argparse.ArgumentParser(description=f"{self.name}: predict; goes on where it was stopped")
        self._add_arguments(parser)
        parser.add_argument("--stride", type=whole(), default=1, help="take every n-th frame of a video (default: 1)")
        parser.add_argument("--crop", action="store_true", help="crop to whole patches instead of resizing once more")
        parser.add_argument("--ready", type=some_path, metavar="FILE", help="write here which test sets can be scored")
        add_network_arguments(parser)
        arguments = parser.parse_args(argv)
        if arguments.stride < 1:
            raise ValueError(f"--stride {arguments.stride}: at least 1 was expected")
        with Processes() as processes:
            return self._predict_all(arguments, processes)

    def _predict_all(self, arguments: argparse.Namespace, processes: Processes) -> int:
        outcome = Outcome(processes)
        tasks = self._tasks(arguments, outcome)
        network = Evaluated.load(arguments, heads=("depth",)) if tasks else None
        ready = []
        for task in tasks:
            with outcome.of(task.dataset, everywhere=True):
                self._predict(task, network, arguments, processes, outcome)
                ready.append(task.dataset)
        if arguments.ready and processes.is_main:
            arguments.ready.write_text(" ".join(ready) + "\n", encoding="utf-8")
        return outcome.finish()

    def score_program(self, argv: Sequence[str] | None = None) -> int:
        """Numbers from the files alone; the exit status is 1 if a test set or a prediction is missing."""
        parser = argparse.ArgumentParser(description=f"{self.name}: score what launch.py has predicted")
        self._add_arguments(parser)
        parser.add_argument("--model_name", default="StreamVGGT", help="fills in --output_dir (default: StreamVGGT)")
        if len(self.alignments) > 1:
            parser.add_argument(
                "--align", nargs="+", choices=self.alignments, default=self.alignments[:1], metavar="NAME",
                help=f"of {', '.join(self.alignments)} (default: {self.alignments[0]})",
            )  # fmt: skip
        arguments = parser.parse_args(argv)
        with Processes() as processes:
            return self._score_all(arguments, processes)

    def _score_all(self, arguments: argparse.Namespace, processes: Processes) -> int:
        outcome = Outcome(processes)
        for task in self._tasks(arguments, outcome):
            with outcome.of(task.dataset):
                if task.folder.is_dir():
                    processes.claim(task.folder)
                self._score(task, arguments.seq_list, getattr(arguments, "align", self.alignments[:1]))
        return outcome.finish()

    def _add_arguments(self, parser: argparse.ArgumentParser) -> None:
        possible = (*self.datasets, *self.more_datasets)
        add_data_arguments(parser, possible, self.datasets, f"../eval_results/{self.name}/{{data}}_{{model_name}}")

    def _tasks(self, arguments: argparse.Namespace, outcome: Outcome) -> list[Task]:
        """The test sets that are there; the others are noted."""
        check_output_dir(arguments)
        tasks = []
        for dataset in arguments.eval_dataset:
            with outcome.of(f"{dataset} is skipped", everywhere=True):
                reader = DEPTH_SETS[dataset](arguments.data_root)
                chosen_scenes(reader, arguments.seq_list)
                folder = arguments.output_dir.format(data=dataset, model_name=arguments.model_name)
                tasks.append(Task(dataset, reader, Path(folder)))
        return tasks

    def _predict(
        self, task: Task, network: Evaluated, arguments: argparse.Namespace, processes: Processes, outcome: Outcome
    ) -> None:
        settings = {"stride": arguments.stride, "crop": arguments.crop, "data": str(task.reader.root.resolve())}
        open_run(
            task.folder,
            protocol=self.name,
            dataset=task.dataset,
            settings={**network.settings, **settings},
            about={**network.about, "data_root": str(arguments.data_root.resolve())},
            processes=processes,
        )
        scenes = chosen_scenes(task.reader, arguments.seq_list)
        clips = [clip for scene in scenes for clip in self.clips(task.reader, scene, task.folder, arguments.stride)]
        by_name = {clip.name: clip for clip in clips}

        def make(name: str) -> None:
            clip = by_name[name]
            paths = [task.reader.image_path(clip.scene, frame) for frame in clip.frames]
            read = partial(load_image, size=network.size, patch_size=network.model.patch_size, crop=arguments.crop)
            images = in_threads(read, paths, num_threads=2)
            for path, prediction in zip(clip.paths, network.predict(images), strict=True):
                save_array(path, prediction.depth[0, 0, ..., 0].float().numpy())

        work_through(
            {clip.name: clip.paths for clip in clips},
            make,
            processes,
            outcome,
            title=task.dataset,
            unit="image" if clips and len(clips[0].frames) == 1 else "sequence",
        )

    def _score(self, task: Task, asked: Sequence[str] | None, alignments: Sequence[str]) -> None:
        reader, folder = task.reader, task.folder
        run = read_run(folder)
        stride = run["settings"].get("stride", 1) if run else 1
        clips = {scene: self.clips(reader, scene, folder, stride) for scene in reader.scenes}
        scenes = scenes_to_score(reader, folder, asked, clips)
        by_alignment: dict[str, dict[str, list[Scored]]] = {alignment: {} for alignment in alignments}
        for scene in scenes:
            for alignment, scored in self.score(reader, clips[scene], alignments).items():
                by_alignment[alignment][scene] = scored
        num_frames = sum(len(clip.frames) for scene in scenes for clip in clips[scene])
        for alignment, by_scene in by_alignment.items():
            numbers = weighted_mean([scored for parts in by_scene.values() for scored in parts])
            path = folder / self.result_name(alignment)
            with atomic_write(path) as unfinished:
                unfinished.write_text(json.dumps({name: numbers[name] for name in METRICS}), encoding="utf-8")
            write_scores(
                folder,
                alignment,
                numbers,
                {scene: weighted_mean(parts) for scene, parts in by_scene.items() if any(n for _, n in parts)},
                num_sequences=len(scenes),
                num_frames=num_frames,
                num_published=[published(reader).num_scenes, published(reader).num_frames],
                data=reader.root,
            )
            tell(task.dataset, path, numbers, len(scenes), num_frames, reader)


def scenes_to_score(
    reader: DepthSet, folder: Path, asked: Sequence[str] | None, clips: Mapping[str, Sequence[Clip]]
) -> list[str]:
    """The sequences that numbers are of: those asked for, else all.

    Predictions of Sintel by another program have no run record; for them the published rule holds: up to 643 files are
    the fourteen sequences, more are all.

    Raises:
        ValueError: a prediction is missing; there is never a mean over those that happen to be there.
    """
    if not folder.is_dir():
        raise ValueError(f"there are no predictions in {folder}: run launch.py first")
    paths = {scene: [path for clip in parts for path in clip.paths] for scene, parts in clips.items()}
    scenes = chosen_scenes(reader, asked)
    if asked is None and isinstance(reader, Sintel) and read_run(folder) is None:
        num_there = sum(path.exists() for parts in paths.values() for path in parts)
        if num_there <= 643:
            scenes = [scene for scene in scenes if scene in FOURTEEN]
            print(f"{folder} has {num_there} predictions and no run.json: scored as the fourteen sequences of Sintel")
    missing = [path for scene in scenes for path in paths[scene] if not path.exists()]
    if missing:
        total = sum(len(paths[scene]) for scene in scenes)
        raise ValueError(
            f"{len(missing)} of {total} predictions are missing, the first is {missing[0]}: run launch.py again, it "
            "goes on where it stopped; or name the sequences to score with --seq_list"
        )
    return scenes


def predicted_and_true(reader: DepthSet, scene: str, frame: str, path: Path) -> tuple[Tensor, Tensor]:
    """A prediction, resized as published to the size of the true depth, and the true depth. (H, W) each"""
    true = reader.depth(scene, frame)
    predicted = load_prediction(path)
    if predicted.ndim != 2 or not np.isfinite(predicted).all():
        raise ValueError(f"{path} holds no finite depth (H, W), but {predicted.dtype} {predicted.shape}")
    height, width = true.shape
    resized = cv2.resize(predicted.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(resized), true


def tell(
    dataset: str, path: Path, numbers: Mapping[str, float], num_scenes: int, num_frames: int, reader: DepthSet
) -> None:
    """One line of numbers, and one more if they are not of the whole published test set."""
    print(f"{dataset:8} Abs Rel {numbers['Abs Rel']:.4f}  δ < 1.25 {100 * numbers['δ < 1.25']:.2f} %  → {path}")
    scenes, frames = published(reader).num_scenes, published(reader).num_frames
    if num_scenes != scenes or num_frames != (frames or num_frames):
        whole = f"{scenes} sequences" + (f" with {frames} frames" if frames else "")
        ours = f"{counted(num_scenes, 'sequence')} with {counted(num_frames, 'frame')}"
        print(f"{'':8} of {ours}; published numbers are of {whole}")
