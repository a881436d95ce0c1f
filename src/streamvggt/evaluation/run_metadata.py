"""What lies beside predictions and numbers, so that a result explains itself and never mixes two configurations.

    run.json     how the predictions were made; written before the first of them
    scores.json  every set of numbers made from them, whole and for each sequence

`streamvggt.evaluation.report` reads both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamvggt.datasets._fixtures import are_fixtures
from streamvggt.evaluation.processes import ProcessGroup
from streamvggt.files import atomic_write
from streamvggt.provenance import require_same_settings, run_metadata, timestamp

RUN_NAME, SCORES_NAME = "run.json", "scores.json"


def open_run(
    folder: Path,
    *,
    protocol: str,
    dataset: str,
    settings: Mapping[str, Any],
    metadata: Mapping[str, Any],
    processes: ProcessGroup,
) -> None:
    """Begin a run in `folder`, or make sure that the one there is the same and can go on.

    Args:
        protocol: "monodepth", "video_depth", "mv_recon", "co3d" or "trajectory".
        settings: everything that decides the predictions.
        about: what is told besides: where the weights came from, the machine.

    Raises:
        ValueError: predictions in `folder` were made with other settings, or nothing says how.
        BlockingIOError: another evaluation writes to it.
    """
    processes.claim(folder)
    path = folder / RUN_NAME
    wanted = {"protocol": protocol, "dataset": dataset, **settings}
    try:
        if processes.is_main and not path.exists() and not _has_files(folder):
            about_run = {"protocol": protocol, "dataset": dataset, "about": dict(metadata)}
            write_json(path, about_run | run_metadata(settings))
    finally:
        processes.barrier()
    if not path.exists():
        raise ValueError(
            f"{folder} holds files but no {RUN_NAME}, so nothing says how they were made: choose another --output_dir, "
            "or remove the folder to start again"
        )
    earlier = read_json(path)
    before = {"protocol": earlier.get("protocol"), "dataset": earlier.get("dataset"), **earlier.get("settings", {})}
    remedy = "Use the same ones, choose another --output_dir, or remove the folder to start again"
    require_same_settings(folder, before, wanted, remedy)


def read_run(folder: Path) -> dict[str, Any] | None:
    """The run record of predictions; None if they have none, as those of another program."""
    path = folder / RUN_NAME
    return read_json(path) if path.exists() else None


def write_scores(
    folder: Path,
    name: str,
    numbers: Mapping[str, float],
    sequences: Mapping[str, Mapping[str, float]],
    *,
    data: Path | None = None,
    **about: Any,
) -> None:
    """Keep a set of numbers in scores.json, in place of an earlier one of that name.

    Args:
        name: of the set: "median", "scale", "point head + ICP".
        numbers: of the whole data set.
        sequences: of each sequence.
        data: Folder of the test set; the numbers say if it holds fixtures.
        about: how they were made, e.g. that they are of some of the sequences only.
    """
    path = folder / SCORES_NAME
    scores = read_json(path) if path.exists() else {}
    if data is not None and are_fixtures(data):
        about["fixtures"] = True
    scores[name] = {"numbers": dict(numbers), "sequences": dict(sequences), "scored": timestamp(), **about}
    write_json(path, scores)


def read_scores(folder: Path) -> dict[str, Any]:
    path = folder / SCORES_NAME
    return read_json(path) if path.exists() else {}


def write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): remove {path.parent} to start again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a record: remove {path.parent} to start again")
    return content


def _has_files(folder: Path) -> bool:
    return folder.exists() and any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))
