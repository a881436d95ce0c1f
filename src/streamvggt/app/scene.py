"""One input, and what the network says of it: run frame by frame, written to disk, watched while it grows."""

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
from streamvggt.app.made import Made
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.status import RunSettings, Status
from streamvggt.export import EXPORTERS, PointFilter, ReconstructionResult, ResultWriter
from streamvggt.export.result import PointSource
from streamvggt.stream.frames import FrameSource
from streamvggt.stream.policy import parse_policy
from streamvggt.stream.pool import PoolFull
from streamvggt.stream.source import FrameOptions

PREVIEW_WIDTH = 840
FPS_WINDOW = 10  # frames, of which the speed is told
USER_ERRORS = (ValueError, FileNotFoundError, ConnectionError)

logger = logging.getLogger(__name__)


class Scene:
    """One input of one visitor.

    Args:
        id: unguessable.
        folder: of this scene alone.
        open_frames: takes size, patch_size, max_frames and fps; gives the frames. None: pictures come by `offer`.
        kind: "images", "video" or "live".
    """

    def __init__(self, id: str, folder: Path, kind: str, open_frames: Callable[..., FrameSource] | None = None):
        self.id = id
        self.folder = folder
        self.kind = kind
        self.status = Status()
        self.used = time.monotonic()
        self.queries = np.zeros((0, 2))  # (x, y) in the first original
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._offered: queue.Queue[np.ndarray] = queue.Queue(maxsize=1)
        self._open_frames = open_frames or self._camera
        self._shared = SharedFolder(folder)
        self._shown = Made(folder / "result-0")

    # What the visitor gives

    def preview(self) -> bytes:
        """JPEG of the first picture, to click points in. Made once.

        Raises:
            ValueError: not even one picture can be read.
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

    def set_query_points(self, queries: np.ndarray) -> None:
        """Points to follow in the next run: (x, y), 0…1 of the first picture's width and height. (K, 2)"""
        if queries.ndim != 2 or queries.shape[1] != 2 or len(queries) > 64 or not np.isfinite(queries).all():
            raise ValueError("At most 64 points can be followed.")
        self.queries = queries.clip(0, 1)
        self.status = replace(self.status, num_queries=len(queries))

    def push_camera_frame(self, picture: np.ndarray) -> None:
        """The newest picture of the visitor's camera; one that still waits is dropped. RGB, uint8 (H0, W0, 3)"""
        self.used = time.monotonic()
        with suppress(queue.Empty):
            self._offered.get_nowait()
        with suppress(queue.Full):
            self._offered.put_nowait(picture)

    @property
    def needs_camera_frame(self) -> bool:
        """The last picture offered has been taken."""
        return self._offered.empty()

    def stop(self) -> None:
        """Finish the frame in work and keep what is there."""
        self._stop.set()

    def remove(self) -> None:
        """Remove all files, those of a frame in work when it is done; nothing can be made of this scene any longer."""
        self._shared.remove()
        self.stop()

    def wait_removed(self, seconds: float) -> None:
        self._shared.wait_removed(seconds)

    # The run

    def run(self, settings: RunSettings, networks: ModelRegistry) -> Iterator[Status]:
        """Run the network over the input, a status after each frame.

        What was there before is replaced when the first frame is done; a run that comes to none leaves it alone.
        Problems are told by the status. Closing the iterator stops the run and keeps its frames.
        """
        if not self._busy.acquire(blocking=False):
            raise ValueError("This scene is running already.")
        before = self.status
        try:
            self._stop.clear()
            with self._shared.use():  # whoever removes the scene stops it after this, or it is refused here
                self._set_status(state="loading", weights=settings.weights, message="")
                yield self.status
                yield from self._steps(settings, networks, before.run + 1)
                if self.status.state == "loading":  # stopped before the first frame
                    self._over(before, "stopped")
        except GeneratorExit:
            self._over(before, "stopped")
            raise
        except USER_ERRORS as error:
            self._over(before, "failed", str(error).replace(str(self.folder), "…"))
        except (MemoryError, torch.OutOfMemoryError, PoolFull):
            self._over(before, "failed", "There is no memory left: take fewer frames or a shorter memory.")
        except Exception as error:
            logger.exception("scene %s failed", self.folder.name)
            is_disk = isinstance(error, OSError) and error.errno is not None
            words = f"The result could not be written: {error.strerror}." if is_disk else None
            self._over(before, "failed", words or "Something went wrong in the program; its log says what.")
        finally:
            self._busy.release()
        yield self.status

    def _over(self, before: Status, state: str, message: str = "") -> None:
        """The run has ended early: with the frames it has, else with those of the run before."""
        shown = before if self.status.run == before.run else self.status
        # Either way it counts, so that the viewer that waits for this run knows.
        self.status = replace(shown, run=before.run + 1, state=state, message=message, seconds_left=None)

    def _steps(self, settings: RunSettings, networks: ModelRegistry, run: int) -> Iterator[Status]:
        policy = parse_policy(settings.policy)
        model = networks.get(settings.weights)
        heads, message = self._heads(settings, model)
        follows = "track" in heads
        frames = self._open_frames(
            size=model.config["image_size"],
            patch_size=model.patch_size,
            max_frames=settings.max_frames,
            fps=None if self.kind == "images" else settings.fps,
        )
        made = Made(self.folder / f"result-{run}")
        stream = networks.open(settings.weights, policy=policy, heads=heads)
        try:
            writer = ResultWriter(made.folder)
            begun = time.monotonic()
            times = deque([begun], maxlen=FPS_WINDOW + 1)
            for frame in frames:
                queries = self._queries_in(frame) if follows and writer.num_frames == 0 else None
                # The network belongs to other visitors until the next frame is there.
                prediction = stream.push(frame, query_points=queries).result()
                made.add(writer, frame, prediction)
                if writer.num_frames == 1:
                    self._show(made, settings, run, message)
                times.append(time.monotonic())
                self._tell_progress(frames, writer.num_frames, times, stream.session.memory.num_bytes)
                yield self.status
                if self._stop.is_set():
                    break
                if settings.max_seconds is not None and times[-1] - begun > settings.max_seconds:
                    message = f"{message} A run may take {settings.max_seconds / 60:.0f} minutes: it was ended."
                    break
        finally:
            stream.close()
            if self._shown is not made:
                shutil.rmtree(made.folder, ignore_errors=True)
        if writer.num_frames == 0:
            if not self._stop.is_set():
                raise ValueError("Not one frame could be read.")
            return
        if frames.skipped:
            names = ", ".join(name for name, _ in frames.skipped[:3])
            message = f"{message} Not read: {names}{', …' if len(frames.skipped) > 3 else ''} ({frames.skipped[0][1]})."
        state = "stopped" if self._stop.is_set() and self.kind != "live" else "finished"
        self._set_status(state=state, message=message.strip(), seconds_left=None, expected=writer.num_frames)

    def _heads(self, settings: RunSettings, model: torch.nn.Module) -> tuple[list[str], str]:
        """The heads to run, and what the visitor should know of them."""
        message = "These weights are random: what you see means nothing." if "random" in settings.weights else ""
        heads = ["camera", "depth"]
        if settings.point_head:
            if "points" not in model.heads:
                raise ValueError(f"The weights {settings.weights} have no point head: switch it off.")
            heads.append("points")
        if len(self.queries) and "track" in model.heads:
            heads.append("track")
        elif len(self.queries):
            message = f"The weights {settings.weights} have no tracker: your points are not followed. {message}"
        return heads, message

    def _show(self, made: Made, settings: RunSettings, run: int, message: str) -> None:
        """The first frame of a run is there: it takes the place of what was there before."""
        old, self._shown = self._shown, made
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
        """The clicked points in pixels of the processed first frame. (K, 2)"""
        height, width = frame.original.shape[:2]
        original = self.queries * (width, height) - 0.5
        homogeneous = np.concatenate([original, np.ones((len(original), 1))], 1)
        pixels = (homogeneous @ np.linalg.inv(frame.original_from_image).T)[:, :2]
        return torch.from_numpy(pixels).float()

    # What the visitor gets

    @property
    def result_folder(self) -> Path:
        return self._shown.folder

    def describe(self, status: Status) -> dict:
        """What the viewer is told of the scene and a status of it; `is_fed`: the visitor's own camera is wanted."""
        told = {"kind": self.kind, "is_fed": self._open_frames == self._camera, "queries": self.queries.tolist()}
        return {**asdict(status), **told}

    def packet(self, position: int, source: PointSource) -> bytes:
        """What the browser gets of a frame; of the point head's points it is made when first asked for."""
        with self._shared.use():
            return self._shown.packet(position, source)

    def depth(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Depth and confidence of a frame, float32 (H, W); 0 where there is none."""
        frame = ReconstructionResult(self.result_folder)[position]
        usable = frame.valid_mask("depth")
        return np.where(usable, frame.depth, 0), np.where(usable, frame.depth_conf, 0)

    def export(self, kind: str, filter: PointFilter) -> Path:
        """One file of the result: GLB, PLY, TUM and MP4 as they are, folders as zip archives.

        Raises:
            ValueError: there is no such export, nothing has run yet, or the filter leaves nothing.
        """
        if kind not in EXPORTERS:
            raise ValueError(f"There is no export {kind!r}; there are {', '.join(EXPORTERS)}.")
        if self.status.num_frames == 0:
            raise ValueError("There is nothing to download yet: press Start first.")
        self.used = time.monotonic()
        with self._shared.use():
            folder = self.folder / "exports"
            path = EXPORTERS[kind](ReconstructionResult(self.result_folder), folder, filter)
            if path.is_dir():
                archive = shutil.make_archive(str(folder / path.name), "zip", path)
                shutil.rmtree(path)
                return Path(archive)
            return path
