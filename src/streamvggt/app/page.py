"""Actions of the page's buttons: take files, start a run, restore a scene."""

import html
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import gradio as gr

from streamvggt.app.examples import Example
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.photos import Photos
from streamvggt.app.run_queue import QueueTicket, RunQueue
from streamvggt.app.scene import Scene, write_preview
from streamvggt.app.scenes import Scenes
from streamvggt.app.status import RunSettings
from streamvggt.app.uploads import Upload, UploadLimits, take_uploads
from streamvggt.app.visitors import session_id
from streamvggt.stream.frames import load_frames
from streamvggt.stream.policy import DEFAULT_POLICY

POLICY_CHOICES = {
    "recommended": DEFAULT_POLICY,
    "the first and the last 8 frames": "window:1,8",
    "the first and the last 24 frames": "window:1,24",
    "all frames": "all",
}
STATUS_INTERVAL = 2.0  # seconds between status updates of a run, which detect a closed page
QUEUE_STATUS_INTERVAL = 5.0  # seconds between status updates of a queued user

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PageOptions:
    """Options of the page.

    Attributes:
        max_frames: Maximum number of frames per run.
        max_seconds: Maximum duration of a run in seconds.
        queue_size: Maximum number of queued users.
        at_once: Maximum number of concurrent runs.
        limits: Upload limits.
        examples: Examples with a button each.
    """

    max_frames: int = 300
    max_seconds: float = 3600.0
    queue_size: int = 8
    at_once: int = 4
    limits: UploadLimits = field(default_factory=UploadLimits)
    examples: Sequence[Example] = ()


class Page:
    """Actions of the page's buttons."""

    def __init__(self, networks: ModelRegistry, scenes: Scenes, options: PageOptions):
        self.networks = networks
        self.scenes = scenes
        self.options = options
        self.line = RunQueue(options.queue_size, options.at_once)

    def take_files(
        self, files: list[str] | None, scene_id: str | None, weights: str, request: gr.Request
    ) -> tuple[object, object, str]:
        """Create a scene of uploaded files, or add photos to the current scene. Return id, viewer and message.

        If the files cannot be used, the current scene stays.
        """
        try:
            uploads = self.scenes.uploads.resolve()
            paths = [(uploads / file).resolve() for file in files or ()]
            are_uploads = all(path.is_relative_to(uploads) and path.is_file() for path in paths)
        except (OSError, ValueError):  # invalid file name
            are_uploads = False
        if not are_uploads or not files:
            return gr.skip(), gr.skip(), error_html("These files are no longer on the server. Upload them again.")
        try:
            scene, left_out = self._take(paths, get_owner(request), scene_id)
        except ValueError as error:
            return gr.skip(), gr.skip(), error_html(str(error))
        notes = [warning_html(limits)] if (limits := self.networks.info(weights).limits) else []
        notes += [info_html(f"Not used: {'; '.join(left_out)}")] if left_out else []
        return scene.id, viewer(scene), "".join(notes)

    def _take(self, paths: list[Path], owner: str, scene_id: str | None = None) -> tuple[Scene, tuple[str, ...]]:
        """Create a scene, or add photos to the current scene. Return it, and names and reasons of unused files.

        Raises:
            ValueError: If the files cannot be used.
        """
        folder = self.scenes.new_folder()
        try:
            upload = take_uploads(paths, folder / "input", self.options.limits)
            current = self.scenes.get(scene_id, owner) if scene_id else None
            if upload.kind == "images" and current is not None and current.photos is not None:
                current.change_photos(lambda photos: photos.add(upload.path))
                shutil.rmtree(folder, ignore_errors=True)
                return current, upload.left_out
            frames = self._frames(upload)
            write_preview(folder, frames)  # raises for unreadable files before another scene is replaced
            return self.scenes.new(owner, upload.kind, frames, folder), upload.left_out
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            logger.warning("an upload could not be stored: %s", error)
            raise ValueError("The files could not be stored or read. See the server log.") from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _frames(self, upload: Upload):
        if upload.kind == "images":
            return Photos(upload.path, self.options.limits.num_photos)
        return partial(load_frames, upload.path)

    def run_example(
        self, label: str, weights: str, request: gr.Request
    ) -> Iterator[tuple[object, object, str, object, object, object]]:
        """Create a scene of an example and run it. Yield id, viewer, message, and the settings of the form."""
        example = next((example for example in self.options.examples if example.label == label), None)
        try:
            if example is None:
                raise ValueError(f"There is no example {str(label)[:60]!r}.")
            owner = get_owner(request)
            scene, _ = self._take(example.files, owner)
        except ValueError as error:
            yield gr.skip(), gr.skip(), error_html(str(error)), gr.skip(), gr.skip(), gr.skip()
            return
        form = example.memory, example.fps, min(example.max_frames, self.options.max_frames)
        messages = self.start(scene.id, weights, *form, False, request)
        yield scene.id, viewer(scene, expect_run=True), next(messages), *form
        for message in messages:
            yield gr.skip(), gr.skip(), message, gr.skip(), gr.skip(), gr.skip()

    def find_again(self, scene_id: str, request: gr.Request) -> tuple[str | None, str, str]:
        """Restore the scene in the address of a reloaded page, or else the latest scene of the user."""
        owner = session_id(request.cookies)
        scene = (scene_id and self.scenes.get(scene_id, owner)) or self.scenes.latest(owner)
        return (None, empty(), "") if scene is None else (scene.id, viewer(scene), "")

    def about_weights(self, weights: str) -> str:
        return about_html(self.networks, str(weights))

    def start(
        self,
        scene_id: str | None,
        weights: str,
        memory: str,
        fps: float,
        max_frames: float,
        point_head: bool,
        request: gr.Request,
    ) -> Iterator[str]:
        """Run the model on the scene. The viewer shows the result."""
        owner = session_id(request.cookies)
        if not scene_id or self.scenes.get(scene_id, owner) is None:
            yield error_html("Choose photos or a video first, or click an example.")
            return
        try:
            settings = self.settings(weights, memory, fps, max_frames, point_head)
            with self.line.join(self.networks.name_of(weights), owner) as place:
                yield from queue_updates(place)
                scene = self.scenes.get(scene_id, owner)
                if scene is None:
                    yield error_html("This scene was replaced in another window.")
                    return
                yield from self._run(scene, settings)
        except ValueError as error:  # the queue is full, or the scene is already running in another window
            yield error_html(str(error))

    def start_camera(
        self,
        camera_error: str,
        weights: str,
        memory: str,
        fps: float,
        max_frames: float,
        point_head: bool,
        request: gr.Request,
    ) -> Iterator[tuple[object, object, str]]:
        """Run the model on the frames of the user's camera. Yield id, viewer and message.

        The new scene replaces the current one when the run can start: the camera is open and the weights are loaded.

        Args:
            camera_error: Reason why the browser could not open the camera, or "".
        """
        try:
            if camera_error:
                raise ValueError(str(camera_error)[:200])
            owner = get_owner(request)
            settings = self.settings(weights, memory, fps, max_frames, point_head)
            with self.line.join(self.networks.name_of(weights), owner) as place:
                for told in chain(queue_updates(place), [info_html("Loading the weights …")]):
                    yield gr.skip(), gr.skip(), told
                self.networks.get(weights)
                scene = self.scenes.new(owner, "live")
                show = viewer(scene, expect_run=True)
                for told in self._run(scene, settings):
                    yield scene.id, show, told
        except ValueError as error:
            yield gr.skip(), gr.skip(), error_html(str(error))

    def settings(self, weights: str, memory: str, fps: float, max_frames: float, point_head: bool) -> RunSettings:
        """Convert the form to settings, within the limits of the page. `fps` 0 takes every frame.

        Raises:
            ValueError: If a value is not offered by the page.
        """
        if memory not in POLICY_CHOICES:
            raise ValueError(f"Eviction policy: expected {', '.join(POLICY_CHOICES)}, got {str(memory)[:60]!r}.")
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in (fps, max_frames)):
            raise ValueError("Frames per second and maximum frames: expected numbers.")
        return RunSettings(
            weights=weights,
            policy=POLICY_CHOICES[memory],
            fps=min(max(float(fps), 0.1), 60.0) if fps else None,
            max_frames=int(min(max(max_frames, 1), self.options.max_frames)),
            point_head=bool(point_head),
            max_seconds=self.options.max_seconds,
        )

    def _run(self, scene: Scene, settings: RunSettings) -> Iterator[str]:
        steps = scene.run(settings, self.networks)
        told = time.monotonic()
        try:
            yield info_html("Loading the weights …")
            for _ in steps:
                if time.monotonic() - told > STATUS_INTERVAL:
                    told = time.monotonic()
                    yield info_html("Running. The viewer shows each frame.")
        finally:
            steps.close()
        status = scene.status
        yield error_html(status.message) if status.state == "failed" else ""


def queue_updates(place: QueueTicket) -> Iterator[str]:
    """Yield messages until the run may start."""
    while before := place.position:
        yield info_html(f"Position in queue: {before}.")
        place.wait(QUEUE_STATUS_INTERVAL)


def get_owner(request: gr.Request) -> str:
    """Return the session id of a request.

    Raises:
        ValueError: If the browser sends no cookie.
    """
    owner = session_id(request.cookies)
    if owner is None:
        raise ValueError(
            "The browser sent no cookie. The page needs it to keep your photos private. "
            "Allow cookies for this page and reload it."
        )
    return owner


def viewer(scene: Scene, expect_run: bool = False) -> str:
    """Return the frame of a scene. Its address changes, and so reloads the viewer, if photos were added."""
    query = f"?photos={scene.photos.num_taken}" if scene.photos is not None else "?"
    address = f"scene/{scene.id}/{query}{'&expect-run' if expect_run else ''}"
    return f'<iframe title="3D viewer" src="{address}" allow="camera; fullscreen"></iframe>'


def empty() -> str:
    return '<div class="empty">Choose photos or a video, or click an example.<br>The scene grows here.</div>'


def about_html(networks: ModelRegistry, weights: str) -> str:
    """Return the limits of the weights, and whether they track points, in words and for the viewer."""
    info = networks.info(weights)
    tracker, hint = {
        True: ("The weights have a tracker.", "Click points to track (optional), then press Start."),
        False: ("The weights have no tracker.", "Press Start. The selected weights have no tracker."),
        None: ("", "Click points to track (only if the weights have a tracker), then press Start."),
    }[info.has_tracker]
    words = html.escape(" ".join(filter(None, [info.limits, tracker])))
    return f'<div class="note" data-tracker="{json.dumps(info.has_tracker)}" data-hint="{hint}">{words}</div>'


def error_html(text: str) -> str:
    return f'<div class="problem" role="alert">Failed: {html.escape(text)}</div>'


def warning_html(text: str) -> str:
    return f'<div class="warning">{html.escape(text)}</div>'


def info_html(text: str) -> str:
    return f'<div class="note">{html.escape(text)}</div>'
