"""The skeleton that all evaluations share.

    parse → tasks → open each run, predict its jobs → score the scenes of each task → gather → summarize

A protocol fills it in: which test sets there are, what is predicted together, how a scene is scored, and what the
scores of all scenes become. Jobs and scenes are split over processes. Scores are made from files alone, so the same
command resumes a program that was stopped.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from streamvggt.evaluation.jobs import FailureLog, Job, run_jobs
from streamvggt.evaluation.processes import ProcessGroup
from streamvggt.evaluation.run_metadata import open_run
from streamvggt.evaluation.runner import ModelRunner, add_network_arguments
from streamvggt.flags import some_path


@dataclass(frozen=True)
class Task:
    """One test set and the folder of its result.

    dataset: its name on the command line.
    reader: of its files; None where the protocol has no readers.
    scenes: names of those to evaluate; a sequence is a scene, too.
    """

    dataset: str
    reader: Any
    scenes: Sequence[str]
    folder: Path


@dataclass(frozen=True)
class Run:
    """One call of a program: its flags, its processes and what failed so far."""

    arguments: argparse.Namespace
    processes: ProcessGroup
    outcome: FailureLog


class Protocol(ABC):
    """One way to evaluate a network.

    name: in run.json, and of the folder in eval_results.
    title: first words of --help.
    datasets: those of the published numbers, evaluated if none is named.
    more_datasets: others that can be evaluated.
    output_dir: pattern of the folder of a result.
    unit: of the progress bar: what one job predicts.
    needs_all_scenes: False: scores are summarized even if scenes have none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    datasets: ClassVar[tuple[str, ...]]
    more_datasets: ClassVar[tuple[str, ...]] = ()
    output_dir: ClassVar[str]
    unit: ClassVar[str] = "sequence"
    needs_all_scenes: ClassVar[bool] = True

    def main(self, argv: Sequence[str] | None = None, *, predict: bool = True, score: bool = True) -> int:
        """Predict, score from the files, or both.

        Returns:
            The exit status: 1 if a test set, a prediction or a score is missing in the end.
        """
        stages = {(True, False): ": predict; goes on where it was stopped", (False, True): ": score what is predicted"}
        parser = argparse.ArgumentParser(description=self.title + stages.get((predict, score), ""))
        self.add_arguments(parser, predict, score)
        if predict and score:
            parser.add_argument("--score_only", action="store_true", help="of earlier predictions, without the network")
        if predict:
            add_network_arguments(parser)
        else:
            parser.add_argument("--model_name", default="StreamVGGT", help="for --output_dir (default: StreamVGGT)")
        parser.set_defaults(score_only=False)
        arguments = parser.parse_args(argv)
        self.validate(arguments)
        with ProcessGroup() as processes:
            run = Run(arguments, processes, FailureLog(processes))
            tasks = self.tasks(run)
            if predict and not arguments.score_only:
                tasks = self.predict_all(tasks, run)
            processes.barrier()
            if score:
                self.score_all(tasks, run)
            return run.outcome.finish()

    def predict_all(self, tasks: Sequence[Task], run: Run) -> list[Task]:
        """Predict what is missing. Returns the tasks whose run could be opened; a job that failed is reported."""
        if not tasks:
            return []
        arguments, opened = run.arguments, []
        network = self.load_network(arguments)
        for task in tasks:
            with run.outcome.guard(task.dataset, everywhere=True):
                open_run(
                    task.folder,
                    protocol=self.name,
                    dataset=task.dataset,
                    settings={**network.settings, **self.settings(task, network, arguments)},
                    metadata={**network.metadata, **self.more_metadata(arguments)},
                    processes=run.processes,
                )
                predict = self.predictor(task, network, arguments)
                jobs = self.jobs(task, arguments)
                run_jobs(jobs, predict, run.processes, run.outcome, title=task.dataset, unit=self.unit)
                opened.append(task)
        return opened

    def score_all(self, tasks: Sequence[Task], run: Run) -> list[Any]:
        """Score all scenes. Returns what `summarize` does for each task, in the main process.

        A scene that failed is reported; there is never a mean over those that happen to be there.
        """
        summaries = []
        for task in tasks:
            with run.outcome.guard(task.dataset, everywhere=True):
                if task.folder.is_dir():
                    run.processes.claim(task.folder)
                task = self.to_score(task, run.arguments)
                scores = {}
                mine = run.processes.shard(task.scenes)
                for scene in tqdm(mine, desc=f"{task.dataset} scores", unit="scene", leave=False, disable=None):
                    with run.outcome.guard(f"{task.dataset}, {scene}"):
                        scores[scene] = self.score(task, scene, run.arguments)
                scores = run.processes.gather(scores)
                if not run.processes.is_main:
                    continue
                missing = [scene for scene in task.scenes if scene not in scores]
                if missing and self.needs_all_scenes:
                    count = f"{len(missing)} of {len(task.scenes)}"
                    raise ValueError(f"{count} scenes have no numbers, the first is {missing[0]}")
                ordered = {scene: scores[scene] for scene in task.scenes if scene in scores}
                summaries.append(self.summarize(task, ordered, run.arguments))
        return summaries

    # What a protocol fills in.

    def add_arguments(self, parser: argparse.ArgumentParser, predict: bool, score: bool) -> None:
        """Flags that choose scenes, and the protocol's own for predicting and scoring."""
        possible = (*self.datasets, *self.more_datasets)
        parser.add_argument(
            "--eval_dataset", nargs="+", choices=possible, default=list(self.datasets), metavar="NAME",
            help=f"of {', '.join(possible)} (default: {' '.join(self.datasets)})",
        )  # fmt: skip
        parser.add_argument("--data_root", type=some_path, default="../data/eval", help="of all test sets")
        words = "words in braces are filled in (default: %(default)s)"
        parser.add_argument("--output_dir", default=self.output_dir, help=words)
        parser.add_argument("--seq_list", nargs="+", metavar="SEQUENCE", help="only these sequences (default: all)")

    def validate(self, arguments: argparse.Namespace) -> None:
        """
        Raises:
            ValueError: flags do not go together, as one folder for several test sets.
        """
        if len(arguments.eval_dataset) > 1 and "{data}" not in arguments.output_dir:
            raise ValueError(f"--output_dir {arguments.output_dir} for several test sets must contain {{data}}")

    def tasks(self, run: Run) -> list[Task]:
        """The test sets that are there; the others are reported."""
        arguments, tasks = run.arguments, []
        for dataset in arguments.eval_dataset:
            with run.outcome.guard(f"{dataset} is skipped", everywhere=True):
                reader = self.open_reader(dataset, arguments.data_root)
                scenes = self.scenes(reader, arguments)
                tasks.append(Task(dataset, reader, scenes, self.folder(dataset, arguments)))
        return tasks

    def open_reader(self, dataset: str, data_root: Path) -> Any:
        """Of a test set, with `name`, `root` and sorted `scenes`; OSError or ValueError if it is not there."""
        raise NotImplementedError

    def scenes(self, reader: Any, arguments: argparse.Namespace) -> Sequence[str]:
        """Those to evaluate."""
        return select_scenes(reader, arguments.seq_list)

    def folder(self, dataset: str, arguments: argparse.Namespace) -> Path:
        """Of a test set's result."""
        return Path(arguments.output_dir.format(data=dataset, model_name=arguments.model_name))

    @abstractmethod
    def load_network(self, arguments: argparse.Namespace) -> ModelRunner:
        """The network with the heads that the protocol needs."""

    @abstractmethod
    def settings(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> dict[str, Any]:
        """What decides the predictions besides the network; must not change within a result."""

    def more_metadata(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """What else run.json keeps."""
        return {}

    def jobs(self, task: Task, arguments: argparse.Namespace) -> Sequence[Job]:
        """What is predicted together, and the files of the predictions."""
        return [Job(scene, [self.prediction_path(task, scene)]) for scene in task.scenes]

    def prediction_path(self, task: Task, scene: str) -> Path:
        """Where a scene's prediction lies, if it is one file."""
        return task.folder / f"{scene}.npz"

    @abstractmethod
    def predictor(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> Any:
        """A function that writes the files of a job of the task."""

    def to_score(self, task: Task, arguments: argparse.Namespace) -> Task:
        """The task with those scenes that are scored.

        Raises:
            ValueError: predictions are missing.
        """
        return task

    @abstractmethod
    def score(self, task: Task, scene: str, arguments: argparse.Namespace) -> Any:
        """Scores of a scene, from its prediction and the ground truth.

        Raises:
            OSError, ValueError: one of them is missing or damaged.
        """

    @abstractmethod
    def summarize(self, task: Task, scores: Mapping[str, Any], arguments: argparse.Namespace) -> Any:
        """Print and write the numbers of a test set, from the scores by scene; called in the main process."""


def select_scenes(reader: Any, requested: Sequence[str] | None) -> list[str]:
    """
    Raises:
        ValueError: the test set has no such sequence.
    """
    unknown = [scene for scene in requested or () if scene not in reader.scenes]
    if unknown:
        raise ValueError(f"{reader.name} in {reader.root} has no {', '.join(unknown)}, only {', '.join(reader.scenes)}")
    return reader.scenes if requested is None else [scene for scene in reader.scenes if scene in requested]
