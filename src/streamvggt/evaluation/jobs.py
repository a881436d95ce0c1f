"""Resumable jobs. The output files of a job show whether it is finished."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from streamvggt.evaluation.processes import ProcessGroup
from streamvggt.files import atomic_write, check_seal, is_sealed
from streamvggt.words import counted


@dataclass(frozen=True)
class Job:
    """A unit of work and its output files."""

    name: str
    paths: Sequence[Path]


JobT = TypeVar("JobT", bound=Job)


class FailureLog:
    """Log of failures. Each is printed when it occurs and repeated at the end."""

    def __init__(self, processes: ProcessGroup):
        self._processes = processes
        self._problems: list[str] = []

    def record(self, what: str, reason: str) -> None:
        tqdm.write(f"error: {what}: {reason}", file=sys.stderr)
        self._problems.append(what)

    @contextmanager
    def guard(self, what: str, everywhere: bool = False) -> Iterator[None]:
        """Catch failures that affect only a part of the work, for example a missing test set or a too long sequence.

        Args:
            what: Name of the part.
            everywhere: Whether all processes run the block. Then only one process prints the failure.
        """
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            self.record(what, f"out of memory ({str(error).partition(chr(10))[0]})")
        except (OSError, ValueError) as error:
            if self._processes.is_main or not everywhere:
                self.record(what, str(error))

    def finish(self) -> int:
        """Return the exit status: 0 if this process has no failure.

        Waits for all processes, because a launcher kills the others when one process fails.
        """
        self._processes.barrier()
        if self._problems:
            print(
                f"\n{counted(len(self._problems), 'problem')}, see above: {'; '.join(self._problems)}", file=sys.stderr
            )
        return int(bool(self._problems))


def run_jobs(
    jobs: Sequence[JobT],
    make: Callable[[JobT], None],
    processes: ProcessGroup,
    outcome: FailureLog,
    *,
    title: str,
    unit: str = "sequence",
) -> None:
    """Run the unfinished jobs of this process. A failed job does not stop the others.

    Args:
        jobs: All jobs. A job with a damaged file is reported and repeated.
        make: Writes the files of a job, each with `atomic_write`.
        processes: The process group.
        outcome: Collects failures.
        title: Title of the progress bar.
        unit: Unit of the progress bar.
    """
    mine = processes.shard(jobs)
    with tqdm(total=len(mine), desc=title, unit=unit, dynamic_ncols=True, disable=None) as bar:
        for job in mine:
            processes.check_folders()
            damaged = [path for path in job.paths if path.exists() and not is_complete(path)]
            for path in damaged:
                tqdm.write(f"warning: {path} is damaged: it is computed again", file=sys.stderr)
                path.unlink()
            if not all(path.exists() for path in job.paths):
                with outcome.guard(f"{title}, {job.name}"):
                    make(job)
            bar.update()


def is_complete(path: Path) -> bool:
    """Whether an array file is undamaged."""
    try:
        if path.suffix in (".npy", ".npz"):
            check_seal(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        return path.stat().st_size > 0
    except Exception:  # the readers raise arbitrary exceptions for damaged files
        return False


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file atomically with a checksum."""
    with atomic_write(path, sealed=True) as unfinished:
        np.save(unfinished, array)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write a .npz file atomically with a checksum."""
    with atomic_write(path, sealed=True) as unfinished:
        np.savez(unfinished, **arrays)


def load_prediction(path: Path):
    """Load the array or arrays of a prediction.

    Raises:
        ValueError: If the file is missing or damaged. The message gives the fix.
    """
    if not path.exists():
        raise ValueError(f"the prediction {path} is missing: run the prediction step again, it resumes")
    try:
        if is_sealed(path):  # files of other programs have no checksum
            check_seal(path)
        content = np.load(path, allow_pickle=False)
        return content if path.suffix == ".npy" else {name: content[name] for name in content.files}
    except Exception as error:
        raise ValueError(
            f"the prediction {path} is damaged ({error}): run the prediction step again, it repeats this one"
        ) from error


def run_main(run: Callable[[], int]) -> int:
    """Run the body of a program. Expected errors are printed as a message without a traceback."""
    try:
        return run()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues from here", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
