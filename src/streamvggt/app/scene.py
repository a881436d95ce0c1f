"""One input and its predictions: computed frame by frame, written to disk, viewable during the run."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from streamvggt.app.camera import CameraFeed
from streamvggt.app.folders import SharedFolder
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.photos import Photos
from streamvggt.app.progress import Progress
from streamvggt.app.run_output import RunOutput
from streamvggt.app.status import RunSettings, Status, heads_to_run
from streamvggt.app.thumbnail import small_jpeg
from streamvggt.app.tracking import checked_queries, query_pixels
from streamvggt.choices import PointSource
from streamvggt.export import EXPORTERS, ExportOptions, ResultFrame, ResultWriter
from streamvggt.stream.frames import FrameSource
from streamvggt.stream.policy import parse_policy
from streamvggt.stream.pool import PoolFull

PREVIEW_NAME, PREVIEW_WIDTH = "preview.jpg", 840
USER_ERRORS = (ValueError, FileNotFoundError, ConnectionError)

logger = logging.getLogger(__name__)


def write_preview(folder: Path, open_frames: Callable[..., FrameSource]) -> None:
    """Write a JPEG of the first image of an input.

    Raises:
        ValueError: If no image can be read.
    """
    frame = next(iter(open_frames(size=112, patch_size=14, max_frames=1, fps=None)))
    (folder / PREVIEW_NAME).write_bytes(small_jpeg(frame.original, max_width=PREVIEW_WIDTH, quality=95))


class Scene:
    """One input of one user.

    Args:
        id: Unguessable id.
        folder: Folder of this scene only.
        kind: "images", "video" or "live".
        open_frames: Function of size, patch_size, max_frames and fps that returns the frames. None: frames come from
            `camera`.
        change: Change of each predicted frame, for example to a known camera. None: as predicted.

    Attributes:
        camera: Receives the images of the user's camera. None if `open_frames` is given.
        output: Output of the run that the viewer shows.
        queries: Points to track in the next run, as of `checked_queries`. (K, 2)
    """

    def __init__(
        self,
        id: str,
        folder: Path,
        kind: str,
        open_frames: Callable[..., FrameSource] | None = None,
        change: Callable[[ResultFrame], ResultFrame] | None = None,
    ):
        self.id = id
        self.folder = folder
        self.kind = kind
        self.status = Status()
        self.used = time.monotonic()
        self.queries = np.zeros((0, 2))
        self.output = RunOutput(folder / "result-0")
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self.camera = CameraFeed(self._stop) if open_frames is None else None
        self._open_frames = open_frames or self.camera
        self._shared = SharedFolder(folder)
        self._change = change

    # Input

    def preview(self) -> bytes:
        """Return a JPEG of the first image for selecting points. Created once.

        Raises:
            ValueError: If no image can be read.
        """
        with self._shared.use() as folder:
            path = folder / PREVIEW_NAME
            if not path.exists():
                write_preview(folder, self._open_frames)
            return path.read_bytes()

    @property
    def photos(self) -> Photos | None:
        """Photos of the input. None for videos and cameras."""
        return self._open_frames if isinstance(self._open_frames, Photos) else None

    def change_photos(self, change: Callable[[Photos], None]) -> None:
        """Add or remove photos for the next run.

        Raises:
            ValueError: If a run reads the photos.
        """
        if not self._busy.acquire(blocking=False):
            raise ValueError("The photos cannot change during a run. Stop the run first.")
        try:
            with self._shared.use() as folder:
                change(self.photos)
                (folder / PREVIEW_NAME).unlink(missing_ok=True)
        finally:
            self._busy.release()

    def set_query_points(self, queries: np.ndarray) -> None:
        """Set the points to track in the next run, as for `checked_queries`."""
        self.queries = checked_queries(queries)
        self.status = replace(self.status, num_queries=len(queries))

    def stop(self) -> None:
        """Stop after the current frame and keep the result."""
        self._stop.set()

    def remove(self) -> None:
        """Delete all files, after the current frame. No output can be created afterwards."""
        self._shared.remove()
        self.stop()

    def wait_removed(self, seconds: float) -> None:
        self._shared.wait_removed(seconds)

    # Run

    def run(self, settings: RunSettings, networks: ModelRegistry) -> Iterator[Status]:
        """Run the model on the input. Yield a status after each frame.

        The first finished frame replaces the previous result. A run without any frame keeps the previous result. Errors
        are reported in the status. Closing the iterator stops the run and keeps its frames.
        """
        if not self._busy.acquire(blocking=False):
            raise ValueError("This scene is already running.")
        before = self.status
        try:
            self._stop.clear()
            with self._shared.use():  # a later removal stops the run; an earlier removal raises here
                self._set_status(state="loading", weights=settings.weights, message="")
                yield self.status
                yield from self._steps(settings, networks, before.run + 1)
                if self.status.state == "loading":  # stopped before the first frame finished
                    self._over(before, "stopped")
        except GeneratorExit:
            self._over(before, "stopped")
            raise
        except USER_ERRORS as error:
            self._over(before, "failed", str(error).replace(str(self.folder), "…"))
        except (MemoryError, torch.OutOfMemoryError, PoolFull):
            self._over(before, "failed", "Out of memory. Reduce the number of frames or choose a smaller policy.")
        except Exception as error:
            logger.exception("scene %s failed", self.folder.name)
            is_disk = isinstance(error, OSError) and error.errno is not None
            words = f"The result could not be written: {error.strerror}." if is_disk else None
            self._over(before, "failed", words or "Internal error. See the server log.")
        finally:
            self._busy.release()
        yield self.status

    def _over(self, before: Status, state: str, message: str = "") -> None:
        """Finish a run early, with its frames, or with those of the previous run if there are none."""
        shown = before if self.status.run == before.run else self.status
        # Increase the run number in both cases, because the viewer waits for it.
        self.status = replace(shown, run=before.run + 1, state=state, message=message, seconds_left=None)

    def _steps(self, settings: RunSettings, networks: ModelRegistry, run: int) -> Iterator[Status]:
        policy = parse_policy(settings.policy)
        model = networks.get(settings.weights)
        heads, message = heads_to_run(settings, model.heads, len(self.queries))
        frames = self._open_frames(
            size=model.config.image_size,
            patch_size=model.patch_size,
            max_frames=settings.max_frames,
            fps=None if self.kind == "images" else settings.fps,
        )
        output = RunOutput(self.folder / f"result-{run}")
        stream = networks.open(settings.weights, policy=policy, heads=heads)
        try:
            writer = ResultWriter(output.folder, change=self._change, durable=False)
            progress = Progress()
            for frame in frames:
                is_first = progress.num_frames == 0
                queries = query_pixels(self.queries, frame) if is_first and "track" in heads else None
                # Other users can use the model until the next frame arrives.
                prediction = stream.push(frame, query_points=queries).result()
                output.add(writer, frame, prediction)
                if is_first:
                    self._show(output, settings, run, message)
                progress.add_frame()
                self._set_progress(progress, frames.num_frames, stream.session.memory.num_bytes)
                yield self.status
                if self._stop.is_set():
                    break
                if settings.max_seconds is not None and progress.seconds > settings.max_seconds:
                    message = f"{message} A run may take {settings.max_seconds / 60:.0f} minutes and was stopped."
                    break
        finally:
            stream.close()
            if self.output is not output:
                shutil.rmtree(output.folder, ignore_errors=True)
        if progress.num_frames == 0:
            if not self._stop.is_set():
                raise ValueError("No frame could be read.")
            return
        if frames.skipped:
            names = ", ".join(name for name, _ in frames.skipped[:3])
            message = f"{message} Not read: {names}{', …' if len(frames.skipped) > 3 else ''} ({frames.skipped[0][1]})."
        state = "stopped" if self._stop.is_set() and self.kind != "live" else "finished"
        self._set_status(state=state, message=message.strip(), seconds_left=None, expected=progress.num_frames)

    def _show(self, output: RunOutput, settings: RunSettings, run: int, message: str) -> None:
        """Replace the previous result by the first frame of a run."""
        old, self.output = self.output, output
        self.status = Status(
            state="running",
            message=message,
            run=run,
            weights=settings.weights,
            num_queries=len(self.queries),
            sources=("depth", "head") if settings.point_head else ("depth",),
        )
        shutil.rmtree(old.folder, ignore_errors=True)

    def _set_progress(self, progress: Progress, expected: int | None, num_bytes: int) -> None:
        self._set_status(
            num_frames=progress.num_frames,
            expected=expected,
            fps=progress.fps,
            seconds_left=progress.seconds_left(expected),
            memory_mb=num_bytes / 1e6,
        )

    def _set_status(self, **changes) -> None:
        self.used = time.monotonic()
        self.status = replace(self.status, **changes)

    # Output

    @property
    def result_folder(self) -> Path:
        return self.output.folder

    def describe(self, status: Status) -> dict:
        """Return the state of the scene for the viewer. `is_fed`: whether the user's camera is needed."""
        told = {
            "text": status.text(self.kind),
            "kind": self.kind,
            "is_fed": self.camera is not None,
            "queries": self.queries.tolist(),
        }
        return {**asdict(status), **told, "photos": [] if self.photos is None else self.photos.names()}

    def packet(self, position: int, source: PointSource) -> bytes:
        """Return the packet of a frame, as `RunOutput.packet`."""
        with self._shared.use():
            return self.output.packet(position, source)

    def export(self, kind: str, options: ExportOptions) -> Path:
        """Return one file of the result, as `RunOutput.export`.

        Raises:
            ValueError: If the export is unknown, the scene has no frames, the options remove everything, or files are
                missing or cannot be written, for example because a new run has deleted the result.
        """
        if kind not in EXPORTERS:
            raise ValueError(f"Export: expected {', '.join(EXPORTERS)}, got {kind!r}.")
        if self.status.num_frames == 0:
            raise ValueError("There is no result to download. Press Start first.")
        self.used = time.monotonic()
        with self._shared.use():
            try:
                return self.output.export(kind, self.folder / "exports", options)
            except (OSError, ValueError) as error:
                raise ValueError(str(error).replace(str(self.folder), "…")) from error
