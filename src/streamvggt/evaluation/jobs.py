"""Work that can be stopped at any moment and gone on with: jobs, each known by the files it makes."""

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
    """What is made together, and the files that it makes."""

    name: str
    paths: Sequence[Path]


JobT = TypeVar("JobT", bound=Job)


class FailureLog:
    """What went wrong on the way: said when it happens, named again at the end."""

    def __init__(self, processes: ProcessGroup):
        self._processes = processes
        self._problems: list[str] = []

    def record(self, what: str, reason: str) -> None:
        tqdm.write(f"!!! {what}: {reason}", file=sys.stderr)
        self._problems.append(what)

    @contextmanager
    def guard(self, what: str, everywhere: bool = False) -> Iterator[None]:
        """A part that may fail without stopping the others: a test set that is missing, a sequence too long.

        Args:
            everywhere: all processes do this, so one of them is enough to say what went wrong.
        """
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            self.record(what, f"there is no memory left ({str(error).partition(chr(10))[0]})")
        except (OSError, ValueError) as error:
            if self._processes.is_main or not everywhere:
                self.record(what, str(error))

    def finish(self) -> int:
        """The exit status: 0 if nothing went wrong in this process. All processes end together.

        A launcher ends the others as soon as one process fails, so nobody leaves before all are done.
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
    """Make the jobs of this process that are not there yet; one that fails does not stop the others.

    Args:
        jobs: a damaged file is named and its job made again.
        make: writes the files of a job, each by `atomic_write`.
        title: of the progress bar.
    """
    mine = processes.shard(jobs)
    with tqdm(total=len(mine), desc=title, unit=unit, dynamic_ncols=True, disable=None) as bar:
        for job in mine:
            processes.check_folders()
            damaged = [path for path in job.paths if path.exists() and not is_complete(path)]
            for path in damaged:
                tqdm.write(f"!!! {path} is damaged: it is made again", file=sys.stderr)
                path.unlink()
            if not all(path.exists() for path in job.paths):
                with outcome.guard(f"{title}, {job.name}"):
                    make(job)
            bar.update()


def is_complete(path: Path) -> bool:
    """Whether a file of numbers is as it was written."""
    try:
        if path.suffix in (".npy", ".npz"):
            check_seal(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        return path.stat().st_size > 0
    except Exception:  # damage makes the readers raise anything
        return False


def save_array(path: Path, array: np.ndarray) -> None:
    """A .npy file, whole or not at all, and sealed."""
    with atomic_write(path, sealed=True) as unfinished:
        np.save(unfinished, array)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """A .npz file, whole or not at all, and sealed."""
    with atomic_write(path, sealed=True) as unfinished:
        np.savez(unfinished, **arrays)


def load_prediction(path: Path):
    """The array or arrays of a prediction.

    Raises:
        ValueError: it is missing or damaged; the message says how to get it back.
    """
    if not path.exists():
        raise ValueError(
            f"the prediction {path} is missing: run the prediction step again, it goes on where it stopped"
        )
    try:
        if is_sealed(path):  # those of other programs are not
            check_seal(path)
        content = np.load(path, allow_pickle=False)
        return content if path.suffix == ".npy" else {name: content[name] for name in content.files}
    except Exception as error:
        raise ValueError(
            f"the prediction {path} is damaged ({error}): run the prediction step again, it makes that one anew"
        ) from error


def run_main(run: Callable[[], int]) -> int:
    """Run a program's body; what the user can mend is said in words, without a traceback."""
    try:
        return run()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
