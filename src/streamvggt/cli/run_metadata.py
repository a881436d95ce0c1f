"""run.json: command, settings, versions and progress of a run."""

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

FIELDS = {
    "command": list,
    "status": str,
    "settings": dict,
    "started": str,
    "frames": dict,
    "timings": dict,
    "exports": list,
}
"""Required fields of the run.json of a run to resume, and their types."""


class RunMetadata:
    """Metadata of a run, updated during the run. Nothing is written before the first call of `progress`.

    Attributes:
        content: Content of the file:
            command: List of words.  status: running, interrupted, failed, streamed (exports missing) or finished.
            error: Reason of a failure or of missing exports, else None.
            settings: Settings that determine the result. A resumed run must have equal settings.
            device, versions, started, updated.
            frames: {"input_total": int or None, an estimate for videos; "done": int; "skipped": [[name, reason], ...]}
            submaps: With --submaps: {"num_submaps", "num_pose_alignments", "num_restarts", "num_false_failures",
                "num_loops", "num_rejected_loops": integers; "latest_restarts": [[frame, reason], ...]}
            timings: {"median_ms", "p95_ms": model time per frame, "seconds": total of all runs}
            exports: Paths inside the folder.
        has_ended: Whether the resumed run had reached the end of its input.
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
        """Create the metadata of a new run, or read that of a run to resume.

        Args:
            out: Output folder.
            command: Command line as words.
            device: Device of the model.
            settings: Settings that determine the result.
            num_input: Number of frames in the input. None if unknown.
            num_done: Number of frames in `out` to resume after. 0 for a new run.

        Raises:
            ValueError: If the run to resume had other settings, or its run.json cannot be read.
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
        """Record the progress of the stream. Writes every few seconds, and immediately if the status changes.

        A failed write is reported and does not stop the run.
        """
        is_news = status != self.content["status"]
        if not is_news and time.monotonic() - self._written < WRITE_INTERVAL:
            return
        names = {name for name, _ in skipped}
        earlier = [entry for entry in self._earlier_skipped if entry[0] not in names]
        self.content["frames"].update(done=num_frames, skipped=[*earlier, *map(list, skipped)])
        measured = statistics()
        if measured.median_ms is not None:
            self.content["timings"].update(median_ms=round(measured.median_ms, 2), p95_ms=round(measured.p95_ms, 2))
        if isinstance(measured, SubmapStatistics):
            counts = ("submaps", "pose_alignments", "restarts", "false_failures", "loops", "rejected_loops")
            self.content["submaps"] = {
                **{f"num_{count}": getattr(measured, f"num_{count}") for count in counts},
                "latest_restarts": [[event.frame, event.reason] for event in measured.restarts],
            }
        self.content.update(status=status, error=error and (str(error) or type(error).__name__))
        try:
            self._write()
        except OSError as problem:
            tqdm.write(f"warning: {self.path} could not be written: {problem.strerror or problem}")

    def finish(self, exports: list[str], failures: list[str]) -> None:
        """Record exports and failures. The status is "finished" only without failures."""
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
            # Undecodable bytes of file names are written as JSON escapes, which preserve the bytes.
            path.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_previous_settings(path: Path, settings: dict) -> dict:
    """Read the run.json of the run to resume.

    Raises:
        ValueError: If its settings differ, or the file is missing.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        check_record(before)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}), so the settings of the frames are unknown and --resume "
            f"cannot continue with them: choose another --out, or remove {path.parent} to start again"
        ) from error
    require_same_settings(path.parent, before["settings"], settings, "Use the same ones, or another --out")
    return before


def check_record(record: object) -> None:
    """Validate the content of an untrusted run.json.

    Raises:
        ValueError: If a field is missing or invalid.
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
