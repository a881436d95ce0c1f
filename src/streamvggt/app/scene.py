"""One input, and what the network says of it: run frame by frame, written to disk, watched while it grows."""

import logging
import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from streamvggt.app.networks import Networks
from streamvggt.app.packet import Track, pack, updated_ranges
from streamvggt.export import EXPORTERS, PointFilter, Result, ResultFrame, ResultWriter
from streamvggt.export.result import Source
from streamvggt.export.video import ColorRanges, color_ranges
from streamvggt.stream.frames import FrameSource, frame_from_array
from streamvggt.stream.policy import DEFAULT_MEMORY, parse_policy
from streamvggt.stream.session import StreamSession
from streamvggt.stream.source import Options

PREVIEW_WIDTH = 840
SPEED_OVER = 10  # frames, of which the speed is told
NO_PICTURE = 30.0  # seconds without one after which a visitor's camera counts as gone
USERS_ERRORS = (ValueError, FileNotFoundError, ConnectionError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """weights: of the menu. memory: as of `parse_policy`. fps: of videos and cameras; None: every frame.

    max_frames: None: all. point_head: run it beside the depth head, for points that need no unprojecting.
    """

    weights: str
    memory: str = DEFAULT_MEMORY
    fps: float | None = None
    max_frames: int | None = 100
    point_head: bool = False


@dataclass(frozen=True)
class Status:
    """How a scene is doing, as the viewer is told.

    state: "ready" (nothing has run), "loading" (weights), "running", "finished", "stopped" or "failed".
    message: why it failed, or what else the visitor should know.
    run: counts the runs, so that the viewer knows when to begin anew.
    num_frames, expected: done, and of how many; None where nobody knows.
    fps, seconds_left: of the latest frames; None before the second.
    memory_mb: of the stream's memory.
    sources: where points can be had from: "depth", "head".
    num_queries: points that are followed.
    """

    state: str = "ready"
    message: str = ""
    run: int = 0
    weights: str = ""
    num_frames: int = 0
    expected: int | None = None
    fps: float | None = None
    seconds_left: float | None = None
    memory_mb: float = 0.0
    sources: tuple[Source, ...] = ("depth",)
    num_queries: int = 0


class BrowserCamera(FrameSource):
    """Pictures that a visitor's browser sends, until it sends no more or `stopped` is set."""

    kind = "live"

    def __init__(self, pictures: "queue.Queue[np.ndarray]", stopped: threading.Event, options: Options):
        super().__init__(options)
        self.num_frames = options.max_frames
        self._pictures = pictures
        self._stopped = stopped

    def __iter__(self) -> Iterator:
        begun = last = time.monotonic()
        shape, index = None, 0
        while not self._stopped.is_set() and index != self.options.max_frames:
            try:
                picture = self._pictures.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() - last < NO_PICTURE:
                    continue
                if index:
                    return
                raise ConnectionError("No picture came from the camera: is it switched on and permitted?") from None
            last = time.monotonic()
            shape = shape or picture.shape
            if picture.shape != shape:
                raise ValueError("The camera changed its picture size, perhaps it was turned: start again.")
            yield frame_from_array(picture, **self.options.preparation, index=index, time=last - begun)
            index += 1


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
        self._tracks: list[list[Track]] = []
        self._ranges: ColorRanges | None = None

    # What the visitor gives

    def preview(self) -> bytes:
        """JPEG of the first picture, to click points in. Made once.

        Raises:
            ValueError: not even one picture can be read.
        """
        path = self.folder / "preview.jpg"
        if not path.exists():
            frame = next(iter(self._open_frames(size=518, patch_size=14, max_frames=1, fps=None)))
            height, width = frame.original.shape[:2]
            scale = min(PREVIEW_WIDTH / width, 1)
            small = cv2.resize(
                frame.original, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA
            )
            path.write_bytes(cv2.imencode(".jpg", small[..., ::-1])[1].tobytes())
        return path.read_bytes()

    def follow(self, queries: np.ndarray) -> None:
        """Points to follow in the next run: (x, y), 0…1 of the first picture's width and height. (K, 2)"""
        if queries.ndim != 2 or queries.shape[1] != 2 or len(queries) > 64 or not np.isfinite(queries).all():
            raise ValueError("At most 64 points can be followed.")
        self.queries = queries.clip(0, 1)
        self.status = replace(self.status, num_queries=len(queries))

    def offer(self, picture: np.ndarray) -> None:
        """The newest picture of the visitor's camera; one that still waits is dropped. RGB, uint8 (H0, W0, 3)"""
        self.used = time.monotonic()
        with suppress(queue.Empty):
            self._offered.get_nowait()
        with suppress(queue.Full):
            self._offered.put_nowait(picture)

    @property
    def wants_picture(self) -> bool:
        """The last picture offered has been taken."""
        return self._offered.empty()

    def stop(self) -> None:
        """Finish the frame in work and keep what is there."""
        self._stop.set()

    # The run

    def run(self, settings: RunSettings, networks: Networks) -> Iterator[Status]:
        """Run the network over the input, a status after each frame; what was there before is replaced.

        Problems are told by the status. Closing the iterator stops the run and keeps its frames.
        """
        if not self._busy.acquire(blocking=False):
            raise ValueError("This scene is running already.")
        try:
            self._begin(settings)
            yield self.status
            yield from self._steps(settings, networks)
        except GeneratorExit:
            self._tell(state="stopped", seconds_left=None)
            raise
        except USERS_ERRORS as error:
            self._tell(state="failed", message=str(error))
        except (MemoryError, torch.OutOfMemoryError):
            self._tell(state="failed", message="There is no memory left: take fewer frames or a shorter memory.")
        except Exception as error:
            logger.exception("scene %s failed", self.folder.name)
            if isinstance(error, OSError) and error.errno is not None:
                self._tell(state="failed", message=f"The result could not be written: {error.strerror}.")
            else:
                self._tell(state="failed", message="Something went wrong in the program; its log says what.")
        finally:
            self._busy.release()
        yield self.status

    def _begin(self, settings: RunSettings) -> None:
        self._stop.clear()
        shutil.rmtree(self.result_folder, ignore_errors=True)
        self._tracks, self._ranges = [], None
        self.status = Status(
            state="loading",
            run=self.status.run + 1,
            weights=settings.weights,
            num_queries=len(self.queries),
            sources=("depth", "head") if settings.point_head else ("depth",),
        )

    def _steps(self, settings: RunSettings, networks: Networks) -> Iterator[Status]:
        policy = parse_policy(settings.memory)
        model = networks.get(settings.weights)
        message = "These weights are random: what you see means nothing." if "random" in settings.weights else ""
        heads = ["camera", "depth"]
        if settings.point_head:
            if "points" not in model.heads:
                raise ValueError(f"The weights {settings.weights} have no point head: switch it off.")
            heads.append("points")
        follows = len(self.queries) > 0 and "track" in model.heads
        if len(self.queries) and not follows:
            message = f"The weights {settings.weights} have no tracker: your points are not followed. {message}"
        if follows:
            heads.append("track")
        frames = self._open_frames(
            size=model.config["image_size"],
            patch_size=model.patch_size,
            max_frames=settings.max_frames,
            fps=None if self.kind == "images" else settings.fps,
        )
        session = StreamSession(model, policy=policy, heads=heads)
        writer = ResultWriter(self.result_folder)
        self._tell(state="running", message=message, expected=frames.num_frames)
        times = deque([time.monotonic()], maxlen=SPEED_OVER + 1)
        for frame in frames:
            queries = None
            if follows and writer.num_frames == 0:
                queries = self._queries_in(frame)
            prediction = session.push(frame, query_points=queries)
            stored = writer.add(frame, prediction)
            self._tracks.append(tracks_of(stored, prediction))
            self._ranges = updated_ranges(self._ranges, stored)
            self._write_packet(stored, writer.num_frames - 1, "depth")
            times.append(time.monotonic())
            fps = (len(times) - 1) / max(times[-1] - times[0], 1e-6)
            left = None if frames.num_frames is None else max(frames.num_frames - writer.num_frames, 0) / fps
            self._tell(
                num_frames=writer.num_frames,
                fps=fps,
                seconds_left=left,
                memory_mb=session.memory.num_bytes / 1e6,
            )
            yield self.status
            if self._stop.is_set():
                break
        if frames.skipped:
            names = ", ".join(name for name, _ in frames.skipped[:3])
            message = f"{message} Not read: {names}{', …' if len(frames.skipped) > 3 else ''} ({frames.skipped[0][1]})."
        state = "stopped" if self._stop.is_set() and self.kind != "live" else "finished"
        self._tell(state=state, message=message.strip(), seconds_left=None, expected=writer.num_frames)

    def _tell(self, **changes) -> None:
        self.used = time.monotonic()
        self.status = replace(self.status, **changes)

    def _camera(self, *, size: int, patch_size: int, max_frames: int | None, fps: float | None) -> FrameSource:
        return BrowserCamera(
            self._offered, self._stop, Options(size=size, patch_size=patch_size, max_frames=max_frames)
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
        return self.folder / "result"

    def describe(self, status: Status) -> dict:
        """What the viewer is told of the scene and a status of it; `is_fed`: the visitor's own camera is wanted."""
        told = {"kind": self.kind, "is_fed": self._open_frames == self._camera, "queries": self.queries.tolist()}
        return {**asdict(status), **told}

    def packet(self, position: int, source: Source) -> bytes:
        """What the browser gets of a frame; of the point head's points it is made when first asked for."""
        path = self._packet_path(position, source)
        if not path.exists():
            self._write_packet(Result(self.result_folder)[position], position, source)
        return path.read_bytes()

    def depth(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Depth and confidence of a frame, float32 (H, W); 0 where there is none."""
        frame = Result(self.result_folder)[position]
        usable = frame.usable("depth")
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
        folder = self.folder / "exports"
        path = EXPORTERS[kind](Result(self.result_folder), folder, filter)
        if path.is_dir():
            archive = shutil.make_archive(str(folder / path.name), "zip", path)
            shutil.rmtree(path)
            return Path(archive)
        return path

    def _write_packet(self, frame: ResultFrame, position: int, source: Source) -> None:
        ranges = self._ranges or color_ranges(Result(self.result_folder))
        path = self._packet_path(position, source)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{threading.get_ident()}.part")
        part.write_bytes(pack(frame, position, source, ranges, self._tracks[position]))
        part.replace(path)

    def _packet_path(self, position: int, source: Source) -> Path:
        return self.result_folder / f"packets-{source}" / f"{position:06d}.bin"


def tracks_of(frame: ResultFrame, prediction) -> list[Track]:
    """Where the followed points are in a frame, and where in the world."""
    if prediction.tracks is None:
        return []
    height, width = frame.image.shape[:2]
    points, _ = frame.world_points("depth")
    usable = frame.usable("depth")
    tracks = []
    for (x, y), visible in zip(prediction.tracks[0, 0].tolist(), prediction.visibility[0, 0].tolist(), strict=True):
        column, row = round(x), round(y)
        is_inside = 0 <= column < width and 0 <= row < height and usable[row, column]
        tracks.append(Track(x, y, visible, tuple(points[row, column].tolist()) if is_inside else None))
    return tracks
