"""run.json: how a result was made, so that the folder explains itself."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import torch

from streamvggt.export.files import atomic_write
from streamvggt.stream.session import StreamStatistics

PACKAGES = ("streamvggt", "torch", "numpy", "pillow", "av", "opencv-python", "pycolmap", "trimesh")
WRITE_EVERY = 5.0  # seconds


class RunRecord:
    """Kept up to date while the run goes on.

    content, as in the file:
        command: list of words.  status: running, interrupted, failed, streamed (exports missing) or finished.
        settings: what decides the result; a resumed run must have the same.
        device, versions, started, updated.
        frames: {"done": int, "skipped": [[name, reason], ...]}
        timings: {"median_ms", "p95_ms": of the network per frame, "seconds": of all runs together}
        exports: paths inside the folder.

    Raises:
        ValueError: the run to go on with had other settings.
    """

    def __init__(self, out: Path, *, command: list[str], device: torch.device, settings: dict, resume: bool):
        self.path = out / "run.json"
        before = json.loads(self.path.read_text()) if resume and self.path.exists() else {}
        changed = [
            f"{name} was {before['settings'].get(name)!r} and is now {value!r}"
            for name, value in settings.items()
            if before and before["settings"].get(name) != value
        ]
        if changed:
            raise ValueError(
                f"{out} was made with other settings and a result does not mix two: {'; '.join(changed)}. "
                "Use the same ones, or another --out"
            )
        self._earlier_seconds = before.get("timings", {}).get("seconds", 0.0)
        self._earlier_skipped = before.get("frames", {}).get("skipped", [])
        self._begun = time.monotonic()
        self._written = float("-inf")
        self.content = {
            "command": command,
            "status": "running",
            "settings": settings,
            "device": device_name(device),
            "versions": {"python": platform.python_version(), **package_versions()},
            "started": before.get("started", now()),
            "frames": before.get("frames", {"done": 0, "skipped": []}),
            "timings": before.get("timings", {}),
            "exports": before.get("exports", []),
        }

    def progress(
        self,
        num_frames: int,
        skipped: list[tuple[str, str]],
        statistics: Callable[[], StreamStatistics],
        status: str = "running",
    ) -> None:
        """Note how far the stream is; written every few seconds, and at once when the status changes."""
        is_news = status != self.content["status"]
        if not is_news and time.monotonic() - self._written < WRITE_EVERY:
            return
        new = [[name, reason] for name, reason in skipped if [name, reason] not in self._earlier_skipped]
        self.content["frames"] = {"done": num_frames, "skipped": [*self._earlier_skipped, *new]}
        said = statistics()
        if said.median_ms is not None:
            self.content["timings"].update(median_ms=round(said.median_ms, 2), p95_ms=round(said.p95_ms, 2))
        self.content["status"] = status
        self._write()

    def finish(self, exports: list[str]) -> None:
        self.content["exports"] = sorted({*self.content["exports"], *exports})
        self.content["status"] = "finished"
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        self.content["timings"]["seconds"] = round(self._earlier_seconds + self._written - self._begun, 2)
        self.content["updated"] = now()
        with atomic_write(self.path) as path:
            path.write_text(json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"


def package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
