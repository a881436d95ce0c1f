"""Prepare the scenes of a download: in parallel, atomically per scene, and resumable."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tqdm import tqdm

from streamvggt.datasets._registry import get_module
from streamvggt.words import counted


class SkipScene(Exception):
    """Raised when a scene is skipped on purpose. The message gives the reason."""


@dataclass
class PrepareReport:
    """Names of the scenes by outcome, with the reason if a scene was skipped or failed."""

    prepared: list[str] = field(default_factory=list)
    already_prepared: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        summary = f"{counted(len(self.prepared), 'scene')} prepared"
        for count, what in [
            (len(self.already_prepared), "were there before"),
            (len(self.skipped), "left out"),
            (len(self.failed), "FAILED"),
        ]:
            summary += f", {count} {what}" if count else ""
        return summary


def prepare(name: str, raw: Path, root: Path, *, workers: int = 1, only: str = "*") -> PrepareReport:
    """Convert the download of a data set.

    Args:
        name: Name of the data set.
        raw: Folder of the download.
        root: Root folder of all data sets. The folder of the set in `root` is created.
        workers: Number of processes.
        only: Pattern of the scenes to prepare.

    Raises:
        FileNotFoundError: If `raw` does not exist.
        ValueError: If the set needs no preparation, or `raw` contains no matching scene.
        RuntimeError: If a worker process was killed.
    """
    module = get_module(name)
    if not hasattr(module, "prepare"):
        raise ValueError(f"{name}: it is read as downloaded, so put the download into {root}:\n{module.__doc__}")
    if not raw.is_dir():
        raise FileNotFoundError(f"{raw} is not a folder; it must be the raw download of {name}, see docs/data.md")
    if not (scenes := module.raw_scenes(raw)):
        raise ValueError(f"{raw} contains nothing to prepare. Expected:\n{module.__doc__}")
    if not (chosen := [scene for scene in scenes if fnmatch(scene, only)]):
        raise ValueError(f"none of {len(scenes)} scenes matches {only!r}; the first is {scenes[0]!r}")
    out = root / module.FOLDER
    out.mkdir(parents=True, exist_ok=True)
    report = PrepareReport(already_prepared=[scene for scene in chosen if (out / scene).is_dir()])
    todo = [scene for scene in chosen if not (out / scene).is_dir()]
    with tqdm(
        total=len(chosen), initial=len(report.already_prepared), desc=name, unit="scene", dynamic_ncols=True
    ) as bar:
        for scene, skipped, failed in _outcomes(name, raw, out, todo, workers):
            if skipped is not None:
                report.skipped[scene] = skipped
            elif failed is not None:
                report.failed[scene] = failed
                tqdm.write(f"{scene}: {failed}")
            else:
                report.prepared.append(scene)
            bar.update()
    if hasattr(module, "finish") and (report.prepared or report.already_prepared):
        module.finish(raw, out)
    return report


def _outcomes(
    name: str, raw: Path, out: Path, scenes: Sequence[str], workers: int
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each scene with the reasons why it was skipped or failed, or None."""
    if workers <= 1 or len(scenes) <= 1:
        for scene in scenes:
            yield (scene, *_prepare_one(name, raw, scene, out))
        return
    # Not forked, because a fork stops the threads of torch and OpenCV.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(scenes)), context, initializer=_exit_with_parent) as pool:
        jobs = {pool.submit(_prepare_one, name, raw, scene, out): scene for scene in scenes}
        try:
            for job in as_completed(jobs):
                yield (jobs[job], *job.result())
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker was killed, probably out of memory; repeat the command with fewer --workers, it resumes"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _exit_with_parent() -> None:
    """Ignore Ctrl-C in workers, and end a worker when its parent process ends for any reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _prepare_one(name: str, raw: Path, scene: str, out: Path) -> tuple[str | None, str | None]:
    """Prepare one scene. Returns the reasons why it was skipped and why it failed, or None."""
    place = out / scene
    unfinished = place.with_name(f".{place.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir(parents=True)
    try:
        get_module(name).prepare(raw, scene, unfinished)
        unfinished.rename(place)
    except SkipScene as reason:
        return str(reason), None
    except Exception as error:  # a damaged scene must not stop the others
        return None, f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return None, None
