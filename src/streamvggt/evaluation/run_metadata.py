"""Metadata of predictions and scores. It prevents mixing settings within a result.

    run.json     how the predictions were made; written before the first prediction
    scores.json  all score sets of the predictions, in total and per sequence

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
    """Start a run in `folder`, or verify that the existing run has equal settings and can be resumed.

    Args:
        folder: The result folder.
        protocol: "monodepth", "video_depth", "mv_recon", "co3d" or "trajectory".
        dataset: Name of the test set.
        settings: All settings that determine the predictions.
        metadata: Additional information: source of the weights, machine.
        processes: The process group.

    Raises:
        ValueError: If predictions in `folder` have other settings or no record.
        BlockingIOError: If another evaluation writes to the folder.
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
            f"{folder} contains files but no {RUN_NAME}, so their settings are unknown: choose another --output_dir, "
            "or remove the folder to start again"
        )
    earlier = read_json(path)
    before = {"protocol": earlier.get("protocol"), "dataset": earlier.get("dataset"), **earlier.get("settings", {})}
    remedy = "Use the same ones, choose another --output_dir, or remove the folder to start again"
    require_same_settings(folder, before, wanted, remedy)


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the run record of predictions, or None for predictions of other programs."""
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
    """Write a score set to scores.json and replace an earlier set of the same name.

    Args:
        folder: The result folder.
        name: Name of the set: "median", "scale", "point head + ICP".
        numbers: Scores of the whole data set.
        sequences: Scores per sequence.
        data: Folder of the test set. The set is marked if it contains fixtures.
        about: Additional information, for example that only some sequences were scored.
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
        raise ValueError(f"{path} does not contain a record: remove {path.parent} to start again")
    return content


def _has_files(folder: Path) -> bool:
    return folder.exists() and any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))
