"""One input and its predictions: computed frame by frame, written to disk, viewable during the run."""

import logging
import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from streamvggt.app.camera import BrowserCamera
from streamvggt.app.folders import SharedFolder
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.packet import pixel_marks
from streamvggt.app.photos import Photos
from streamvggt.app.run_output import RunOutput
from streamvggt.app.status import RunSettings, Status
from streamvggt.choices import PointSource
from streamvggt.export import EXPORTERS, ExportOptions, ReconstructionResult, ResultFrame, ResultWriter
from streamvggt.stream.frames import FrameSource
from streamvggt.stream.policy import parse_policy
from streamvggt.stream.pool import PoolFull
from streamvggt.stream.source import FrameOptions
from streamvggt.stream.weights_note import RANDOM_WEIGHTS_NOTE, weights_note

PREVIEW_WIDTH = 840
FPS_WINDOW = 10  # number of frames for the displayed speed
USER_ERRORS = (ValueError, FileNotFoundError, ConnectionError)

logger = logging.getLogger(__name__)


class Scene:
    """One input of one user.

    Args:
        id: Unguessable id.
        folder: Folder of this scene only.
        kind: "images", "video" or "live".
        open_frames: Function of size, patch_size, max_frames and fps that returns the frames. None if frames come from
            `push_camera_frame`.
        change: Change of each predicted frame, for example to a known camera. None: as predicted.
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
        self.queries = np.zeros((0, 2))  # (x, y) in the first original image
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._offered: queue.Queue[np.ndarray] = queue.Queue(maxsize=1)
        self._open_frames = open_frames or self._camera
        self._shared = SharedFolder(folder)
        self._shown = RunOutput(folder / "result-0")
        self._change = change

    # Input

    def preview(self) -> bytes:
        """Return a JPEG of the first image for selecting points. Created once.

        Raises:
            ValueError: If no image can be read.
        """
        with self._shared.use() as folder:
            path = folder / "preview.jpg"
            if not path.exists():
                frame = next(iter(self._open_frames(size=518, patch_size=14, max_frames=1, fps=None)))
                height, width = frame.original.shape[:2]
                scale = min(PREVIEW_WIDTH / width, 1)
                small = cv2.resize(
                    frame.original, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA
                )
                path.write_bytes(cv2.imencode(".jpg", small[..., ::-1])[1].tobytes())
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
                (folder / "preview.jpg").unlink(missing_ok=True)
        finally:
            self._busy.release()

    def set_query_points(self, queries: np.ndarray) -> None:
        """Set the points to track in the next run: (x, y) in [0, 1] of the first image's width and height. (K, 2)"""
        if queries.ndim != 2 or queries.shape[1] != 2 or len(queries) > 64 or not np.isfinite(queries).all():
            raise ValueError("Points: expected at most 64 pairs of finite numbers.")
        self.queries = queries.clip(0, 1)
        self.status = replace(self.status, num_queries=len(queries))

    def push_camera_frame(self, picture: np.ndarray) -> None:
        """Set the latest image of the user's camera. A pending image is replaced. RGB, uint8 (H0, W0, 3)"""
        self.used = time.monotonic()
        with suppress(queue.Empty):
            self._offered.get_nowait()
        with suppress(queue.Full):
            self._offered.put_nowait(picture)

    @property
    def needs_camera_frame(self) -> bool:
        """Whether the last camera image has been taken."""
        return self._offered.empty()

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
        heads, message = self._heads(settings, model)
        follows = "track" in heads
        frames = self._open_frames(
            size=model.config.image_size,
            patch_size=model.patch_size,
            max_frames=settings.max_frames,
            fps=None if self.kind == "images" else settings.fps,
        )
        run_output = RunOutput(self.folder / f"result-{run}")
        stream = networks.open(settings.weights, policy=policy, heads=heads)
        try:
            writer = ResultWriter(run_output.folder, change=self._change, durable=False)
            begun = time.monotonic()
            times = deque([begun], maxlen=FPS_WINDOW + 1)
            for frame in frames:
                queries = self._queries_in(frame) if follows and writer.num_frames == 0 else None
                # Other users can use the model until the next frame arrives.
                prediction = stream.push(frame, query_points=queries).result()
                run_output.add(writer, frame, prediction)
                if writer.num_frames == 1:
                    self._show(run_output, settings, run, message)
                times.append(time.monotonic())
                self._tell_progress(frames, writer.num_frames, times, stream.session.memory.num_bytes)
                yield self.status
                if self._stop.is_set():
                    break
                if settings.max_seconds is not None and times[-1] - begun > settings.max_seconds:
                    message = f"{message} A run may take {settings.max_seconds / 60:.0f} minutes and was stopped."
                    break
        finally:
            stream.close()
            if self._shown is not run_output:
                shutil.rmtree(run_output.folder, ignore_errors=True)
        if writer.num_frames == 0:
            if not self._stop.is_set():
                raise ValueError("No frame could be read.")
            return
        if frames.skipped:
            names = ", ".join(name for name, _ in frames.skipped[:3])
            message = f"{message} Not read: {names}{', …' if len(frames.skipped) > 3 else ''} ({frames.skipped[0][1]})."
        state = "stopped" if self._stop.is_set() and self.kind != "live" else "finished"
        self._set_status(state=state, message=message.strip(), seconds_left=None, expected=writer.num_frames)

    def _heads(self, settings: RunSettings, model: torch.nn.Module) -> tuple[list[str], str]:
        """Return the heads to run, and a message for the user."""
        note = weights_note(settings.weights)
        message = note if note == RANDOM_WEIGHTS_NOTE else ""
        heads = ["camera", "depth"]
        if settings.point_head:
            if "points" not in model.heads:
                raise ValueError(f"The weights {settings.weights} have no point head. Switch it off.")
            heads.append("points")
        if len(self.queries) and "track" in model.heads:
            heads.append("track")
        elif len(self.queries):
            message = f"The weights {settings.weights} have no tracker. The points are not tracked. {message}"
        return heads, message

    def _show(self, run_output: RunOutput, settings: RunSettings, run: int, message: str) -> None:
        """Replace the previous result by the first frame of a run."""
        old, self._shown = self._shown, run_output
        self.status = Status(
            state="running",
            message=message,
            run=run,
            weights=settings.weights,
            num_queries=len(self.queries),
            sources=("depth", "head") if settings.point_head else ("depth",),
        )
        shutil.rmtree(old.folder, ignore_errors=True)

    def _tell_progress(self, frames: FrameSource, num_frames: int, times: deque[float], num_bytes: int) -> None:
        fps = (len(times) - 1) / max(times[-1] - times[0], 1e-6)
        left = None if frames.num_frames is None else max(frames.num_frames - num_frames, 0) / fps
        self._set_status(
            num_frames=num_frames,
            expected=frames.num_frames,
            fps=fps,
            seconds_left=left,
            memory_mb=num_bytes / 1e6,
        )

    def _set_status(self, **changes) -> None:
        self.used = time.monotonic()
        self.status = replace(self.status, **changes)

    def _camera(self, *, size: int, patch_size: int, max_frames: int | None, fps: float | None) -> FrameSource:
        return BrowserCamera(
            self._offered, self._stop, FrameOptions(size=size, patch_size=patch_size, max_frames=max_frames)
        )

    def _queries_in(self, frame) -> torch.Tensor:
        """Return the query points in pixels of the processed first frame. (K, 2)"""
        height, width = frame.original.shape[:2]
        original = self.queries * (width, height) - 0.5
        homogeneous = np.concatenate([original, np.ones((len(original), 1))], 1)
        pixels = (homogeneous @ np.linalg.inv(frame.original_from_image).T)[:, :2]
        return torch.from_numpy(pixels).float()

    # Output

    @property
    def result_folder(self) -> Path:
        return self._shown.folder

    def describe(self, status: Status) -> dict:
        """Return the state of the scene for the viewer. `is_fed`: whether the user's camera is needed."""
        told = {
            "text": status.text(self.kind),
            "kind": self.kind,
            "is_fed": self._open_frames == self._camera,
            "queries": self.queries.tolist(),
        }
        return {**asdict(status), **told, "photos": [] if self.photos is None else self.photos.names()}

    def packet(self, position: int, source: PointSource) -> bytes:
        """Return the packet of a frame. Packets of point-head points are created at the first request."""
        with self._shared.use():
            return self._shown.packet(position, source)

    def depth(self, position: int, step: int = 1) -> np.ndarray:
        """Return depth, confidence and marks of every `step`-th pixel of a frame. 0 marks missing depth.

        The marks of a pixel are those of the `step`×`step` pixels that start there, so that no edge is left out.

        Returns:
            Float32. (3, ceil(H / step), ceil(W / step))
        """
        frame = ReconstructionResult(self.result_folder)[position]
        usable = frame.valid_mask("depth")
        marks = pixel_marks(frame, "depth")
        height, width = marks.shape
        blocks = np.pad(marks, ((0, -height % step), (0, -width % step)))
        blocks = blocks.reshape(-(-height // step), step, -(-width // step), step)
        values = [np.where(usable, value, 0)[::step, ::step] for value in (frame.depth, frame.depth_conf)]
        return np.stack([*values, np.bitwise_or.reduce(blocks, axis=(1, 3))]).astype("<f4")

    def export(self, kind: str, filter: ExportOptions) -> Path:
        """Return one file of the result: GLB, PLY, TUM or MP4, or a folder as a zip archive.

        Raises:
            ValueError: If the export does not exist, there is no result, or the filter removes everything.
        """
        if kind not in EXPORTERS:
            raise ValueError(f"Export: expected {', '.join(EXPORTERS)}, got {kind!r}.")
        if self.status.num_frames == 0:
            raise ValueError("There is no result to download. Press Start first.")
        self.used = time.monotonic()
        with self._shared.use():
            folder = self.folder / "exports"
            path = EXPORTERS[kind](ReconstructionResult(self.result_folder), folder, filter)
            if path.is_dir():
                archive = shutil.make_archive(str(folder / path.name), "zip", path)
                shutil.rmtree(path)
                return Path(archive)
            return path
