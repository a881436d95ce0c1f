"""run.json: how a result was made, so that the folder explains itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import UnionType

import torch
from tqdm import tqdm

from streamvggt.files import atomic_write
from streamvggt.names import is_plain
from streamvggt.provenance import device_name, require_same_settings, run_metadata, timestamp
from streamvggt.stream.session import StreamStatistics
from streamvggt.stream.submaps.session import SubmapStatistics

WRITE_INTERVAL = 5.0  # seconds

FIELDS = {"status": str, "settings": dict, "started": str, "frames": dict, "timings": dict, "exports": list}
"""Those of a run.json that a run to go on with needs, and their types."""


class RunMetadata:
    """Kept up to date while the run goes on; nothing is written before the first `progress`.

    content, as in the file:
        command: list of words.  status: running, interrupted, failed, streamed (exports missing) or finished.
        error: why it failed or exports are missing, else None.
        settings: what decides the result; a resumed run must have the same.
        device, versions, started, updated.
        frames: {"input_total": int or None, an estimate for videos; "done": int; "skipped": [[name, reason], ...]}
        submaps: with --submaps: {"num_submaps", "num_pose_alignments", "num_restarts", "num_false_failures",
            "num_loops", "num_rejected_loops": integers; "latest_restarts": [[frame, reason], ...]}
        timings: {"median_ms", "p95_ms": of the network per frame, "seconds": of all runs together}
        exports: paths inside the folder.

    has_ended: the run gone on with had come to the end of this input.
    """

    def __init__(
        self,
        out: Path,
        *,
        command: list[str],
        device: torch.device,
        settings: dict,
        num_input: int | None,
        num_done: int,
    ):
        """
        Args:
            num_input: frames in the input, None if nobody knows.
            num_done: frames that are in `out`, to go on with.

        Raises:
            ValueError: the run to go on with had other settings, or its run.json cannot be read.
        """
        self.path = out / "run.json"
        before = read_previous_settings(self.path, settings) if num_done else {}
        frames = {"skipped": [], **before.get("frames", {}), "input_total": num_input, "done": num_done}
        self.has_ended = before.get("status") in ("streamed", "finished") and frames == before["frames"]
        self._earlier_seconds = before.get("timings", {}).get("seconds", 0.0)
        self._earlier_skipped = frames["skipped"]
        self._begun = time.monotonic()
        self._written = float("-inf")
        metadata = run_metadata(settings, command)
        self.content = {
            "command": metadata["command"],
            "status": None,
            "error": None,
            "settings": metadata["settings"],
            "device": device_name(device),
            "versions": metadata["versions"],
            "started": before.get("started", metadata["started"]),
            "frames": frames,
            "timings": before.get("timings", {}),
            **({"submaps": before["submaps"]} if "submaps" in before else {}),
            "exports": before.get("exports", []) if self.has_ended else [],
        }

    def progress(
        self,
        num_frames: int,
        skipped: list[tuple[str, str]],
        statistics: Callable[[], StreamStatistics],
        status: str = "running",
        error: BaseException | None = None,
    ) -> None:
        """Note how far the stream is; written every few seconds, and at once when the status changes.

        That it cannot be written is said but stops nothing: the frames matter more.
        """
        is_news = status != self.content["status"]
        if not is_news and time.monotonic() - self._written < WRITE_INTERVAL:
            return
        names = {name for name, _ in skipped}
        earlier = [entry for entry in self._earlier_skipped if entry[0] not in names]
        self.content["frames"].update(done=num_frames, skipped=[*earlier, *map(list, skipped)])
        said = statistics()
        if said.median_ms is not None:
            self.content["timings"].update(median_ms=round(said.median_ms, 2), p95_ms=round(said.p95_ms, 2))
        if isinstance(said, SubmapStatistics):
            counts = ("submaps", "pose_alignments", "restarts", "false_failures", "loop_closure", "rejected_loops")
            self.content["submaps"] = {
                **{f"num_{count}": getattr(said, f"num_{count}") for count in counts},
                "latest_restarts": [[event.frame, event.reason] for event in said.restarts],
            }
        self.content.update(status=status, error=error and (str(error) or type(error).__name__))
        try:
            self._write()
        except OSError as problem:
            tqdm.write(f"!!! {self.path} could not be written: {problem.strerror or problem}")

    def finish(self, exports: list[str], failures: list[str]) -> None:
        """Note what was exported, and why something could not be: the run is then not finished."""
        self.content["exports"] = sorted({*self.content["exports"], *exports})
        status = "streamed" if failures else "finished"
        self.content.update(status=status, error="; ".join(failures) or None)
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        self.content["timings"]["seconds"] = round(self._earlier_seconds + self._written - self._begun, 2)
        self.content["updated"] = timestamp()
        with atomic_write(self.path, make_folder=False) as path:
            text = json.dumps(self.content, indent=2, ensure_ascii=False) + "\n"
            # Bytes of file names that are not text become escapes of JSON, which are read back as the same bytes.
            path.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_previous_settings(path: Path, settings: dict) -> dict:
    """The record of the run to go on with, whose settings must be the same.

    Raises:
        ValueError: they are not, or there is no such record.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        check_record(before)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}), so nothing says how the frames beside it were made and --resume "
            f"cannot go on with them: choose another --out, or remove {path.parent} to start again"
        ) from error
    require_same_settings(path.parent, before["settings"], settings, "Use the same ones, or another --out")
    return before


def check_record(record: object) -> None:
    """Judge what was read from a run.json, of which nothing is trusted.

    Raises:
        ValueError: a field is missing or is not what `RunMetadata` writes.
    """

    def check(value: object, kinds: type | UnionType, name: str) -> None:
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{name}: expected {getattr(kinds, '__name__', kinds)}, got {value!r:.50}")

    check(record, dict, "run.json")
    for name, kinds in FIELDS.items():
        check(record.get(name), kinds, name)
    check(record.get("submaps"), dict | None, "submaps")
    frames, timings = record["frames"], record["timings"]
    check(frames.get("input_total"), int | None, "frames.input_total")
    check(frames.get("done"), int, "frames.done")
    check(frames.get("skipped"), list, "frames.skipped")
    for entry in frames["skipped"]:
        check(entry, list, "frames.skipped")
        if len(entry) != 2 or not all(isinstance(word, str) for word in entry):
            raise ValueError(f"frames.skipped: expected pairs of name and reason, got {entry!r:.50}")
    for name, value in timings.items():
        check(value, int | float, f"timings.{name}")
    for name in record["exports"]:
        check(name, str, "exports")
        if not is_plain(name):
            raise ValueError(f"exports: expected plain file names, got {name!r}")
