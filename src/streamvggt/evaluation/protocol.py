"""Base class of all evaluations.

    parse → tasks → open each run, predict its jobs → score the scenes of each task → gather → summarize

A protocol defines the test sets, the jobs to predict, the scores of a scene, and the summary of all scenes. Jobs and
scenes are split over processes. Scores are computed from files only, so repeating the command resumes an interrupted
program.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from streamvggt.evaluation.arguments import ProtocolArguments
from streamvggt.evaluation.jobs import FailureLog, Job, run_jobs
from streamvggt.evaluation.processes import ProcessGroup
from streamvggt.evaluation.run_metadata import open_run
from streamvggt.evaluation.runner import ModelRunner


@dataclass(frozen=True)
class Task:
    """One test set and the folder of its result.

    Attributes:
        dataset: Name on the command line.
        reader: Reader of the files. None for protocols without readers.
        scenes: Names of the scenes or sequences to evaluate.
    """

    dataset: str
    reader: Any
    scenes: Sequence[str]
    folder: Path


@dataclass(frozen=True)
class Run:
    """One call of a program: its flags, processes and failures."""

    arguments: argparse.Namespace
    processes: ProcessGroup
    outcome: FailureLog


class Protocol(ABC):
    """An evaluation protocol.

    Attributes:
        name: Name in run.json, and of the folder in eval_results.
        command_line: Arguments of the program.
        unit: Unit of the progress bar: the content of one job.
        needs_all_scenes: If False, scores are summarized even if scenes are missing.
    """

    name: ClassVar[str]
    command_line: ClassVar[ProtocolArguments]
    unit: ClassVar[str] = "sequence"
    needs_all_scenes: ClassVar[bool] = True

    def main(self, argv: Sequence[str] | None = None, *, predict: bool = True, score: bool = True) -> int:
        """Predict, score from files, or both.

        Returns:
            The exit status: 1 if a test set, a prediction or a score is missing at the end.
        """
        arguments = self.command_line.parser(predict, score).parse_args(argv)
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
        """Compute missing predictions. Return the tasks whose run was opened. Failed jobs are reported."""
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
        """Score all scenes. Return the results of `summarize` per task in the main process.

        Failed scenes are reported. The mean is never computed over an incomplete set of scenes.
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

    # Methods that a protocol overrides.

    def validate(self, arguments: argparse.Namespace) -> None:
        """Check the combination of flags.

        Raises:
            ValueError: If flags are incompatible, for example one folder for several test sets.
        """
        if len(arguments.eval_dataset) > 1 and "{data}" not in arguments.output_dir:
            raise ValueError(f"--output_dir {arguments.output_dir} for several test sets must contain {{data}}")

    def tasks(self, run: Run) -> list[Task]:
        """Return the test sets that are present. Missing ones are reported."""
        arguments, tasks = run.arguments, []
        for dataset in arguments.eval_dataset:
            with run.outcome.guard(f"{dataset} is skipped", everywhere=True):
                reader = self.open_reader(dataset, arguments.data_root)
                scenes = self.scenes(reader, arguments)
                tasks.append(Task(dataset, reader, scenes, self.folder(dataset, arguments)))
        return tasks

    def open_reader(self, dataset: str, data_root: Path) -> Any:
        """Open a test set with `name`, `root` and sorted `scenes`.

        Raises:
            OSError: If the test set is missing.
            ValueError: If the test set is missing or invalid.
        """
        raise NotImplementedError

    def scenes(self, reader: Any, arguments: argparse.Namespace) -> Sequence[str]:
        """Return the scenes to evaluate."""
        return select_scenes(reader, arguments.seq_list)

    def folder(self, dataset: str, arguments: argparse.Namespace) -> Path:
        """Return the result folder of a test set."""
        return Path(arguments.output_dir.format(data=dataset, model_name=arguments.model_name))

    @abstractmethod
    def load_network(self, arguments: argparse.Namespace) -> ModelRunner:
        """Load the model with the heads of the protocol."""

    @abstractmethod
    def settings(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> dict[str, Any]:
        """Return the settings that determine the predictions besides the model. Constant within a result."""

    def more_metadata(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Return additional content of run.json."""
        return {}

    def jobs(self, task: Task, arguments: argparse.Namespace) -> Sequence[Job]:
        """Return the jobs with the files of their predictions."""
        return [Job(scene, [self.prediction_path(task, scene)]) for scene in task.scenes]

    def prediction_path(self, task: Task, scene: str) -> Path:
        """Return the path of a scene's prediction if it is one file."""
        return task.folder / f"{scene}.npz"

    @abstractmethod
    def predictor(self, task: Task, network: ModelRunner, arguments: argparse.Namespace) -> Any:
        """Return a function that writes the files of a job of the task."""

    def to_score(self, task: Task, arguments: argparse.Namespace) -> Task:
        """Return the task with the scenes to score.

        Raises:
            ValueError: If predictions are missing.
        """
        return task

    @abstractmethod
    def score(self, task: Task, scene: str, arguments: argparse.Namespace) -> Any:
        """Score a scene from its prediction and the ground truth.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is damaged.
        """

    @abstractmethod
    def summarize(self, task: Task, scores: Mapping[str, Any], arguments: argparse.Namespace) -> Any:
        """Print and write the summary of a test set from the scores by scene. Runs in the main process."""


def select_scenes(reader: Any, requested: Sequence[str] | None) -> list[str]:
    """Return the requested scenes, or all scenes.

    Raises:
        ValueError: If a requested sequence does not exist.
    """
    unknown = [scene for scene in requested or () if scene not in reader.scenes]
    if unknown:
        raise ValueError(f"{reader.name} in {reader.root} has no {', '.join(unknown)}, only {', '.join(reader.scenes)}")
    return reader.scenes if requested is None else [scene for scene in reader.scenes if scene in requested]
