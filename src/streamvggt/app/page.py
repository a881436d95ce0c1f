"""Actions of the page's buttons: take files, start a run, restore a scene."""

import html
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import gradio as gr

from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.run_queue import QueueTicket, RunQueue
from streamvggt.app.scene import Scene
from streamvggt.app.scenes import Scenes
from streamvggt.app.status import RunSettings
from streamvggt.app.uploads import UploadLimits, take_uploads
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
        examples: Example names and files.
    """

    max_frames: int = 300
    max_seconds: float = 3600.0
    queue_size: int = 8
    at_once: int = 4
    limits: UploadLimits = field(default_factory=UploadLimits)
    examples: Mapping[str, Path] = field(default_factory=dict)


class Page:
    """Actions of the page's buttons."""

    def __init__(self, networks: ModelRegistry, scenes: Scenes, options: PageOptions):
        self.networks = networks
        self.scenes = scenes
        self.options = options
        self.line = RunQueue(options.queue_size, options.at_once)

    def take_files(self, files: list[str] | None, request: gr.Request) -> tuple[str | None, str, str]:
        """Create a scene of uploaded files. Return its id, the viewer and a message."""
        if not files:
            return None, empty(), ""
        try:
            uploads = self.scenes.uploads.resolve()
            paths = [(uploads / file).resolve() for file in files]
            are_uploads = all(path.is_relative_to(uploads) and path.is_file() for path in paths)
        except (OSError, ValueError):  # invalid file name
            are_uploads = False
        if not are_uploads:
            return None, empty(), error_html("These files are not here any longer: upload them again.")
        return self._take(paths, request)

    def take_example(self, name: str, request: gr.Request) -> tuple[str | None, str, str]:
        """Create a scene of an example. Return its id, the viewer and a message."""
        if name not in self.options.examples:
            return None, empty(), error_html(f"There is no example {name!r}.")
        return self._take([self.options.examples[name]], request)

    def _take(self, paths: list[Path], request: gr.Request) -> tuple[str | None, str, str]:
        try:
            owner = get_owner(request)
            folder = self.scenes.new_folder()
        except ValueError as error:
            return None, empty(), error_html(str(error))
        try:
            upload = take_uploads(paths, folder / "input", self.options.limits)
            scene = self.scenes.new(owner, upload.kind, partial(load_frames, upload.path), folder)
            scene.preview()
        except (ValueError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                logger.warning("an upload could not be taken: %s", error)
                error = "The files could not be stored or read; the log says why."
            return None, empty(), error_html(str(error))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        told = error_html(f"Left out: {'; '.join(upload.left_out)}") if upload.left_out else ""
        return scene.id, viewer(scene), told

    def find_again(self, request: gr.Request) -> tuple[str | None, str, str]:
        """Restore the scene of a user after a page reload."""
        scene = self.scenes.latest(session_id(request.cookies))
        return (None, empty(), "") if scene is None else (scene.id, viewer(scene), "")

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
            yield error_html("Choose photos or a video first, or click the example.")
            return
        try:
            settings = self.settings(weights, memory, fps, max_frames, point_head)
            with self.line.join(self.networks.name_of(weights), owner) as place:
                yield from queue_updates(place)
                scene = self.scenes.get(scene_id, owner)
                if scene is None:
                    yield error_html("You have chosen something else meanwhile, in another window.")
                    return
                yield from self._run(scene, settings)
        except ValueError as error:  # the queue is full, or the scene is already running in another window
            yield error_html(str(error))

    def start_camera(
        self,
        weights: str,
        memory: str,
        fps: float,
        max_frames: float,
        point_head: bool,
        request: gr.Request,
    ) -> Iterator[tuple[str | None, str, str]]:
        """Run the model on the frames of the user's camera. Yield id, viewer and message."""
        try:
            owner = get_owner(request)
            settings = self.settings(weights, memory, fps, max_frames, point_head)
            with self.line.join(self.networks.name_of(weights), owner) as place:
                for told in queue_updates(place):
                    yield None, empty(), told
                scene = self.scenes.new(owner, "live")
                show = viewer(scene, expect_run=True)
                for told in self._run(scene, settings):
                    yield scene.id, show, told
        except ValueError as error:
            yield None, empty(), error_html(str(error))

    def settings(self, weights: str, memory: str, fps: float, max_frames: float, point_head: bool) -> RunSettings:
        """Convert the form to settings, within the limits of the page. `fps` 0 takes every frame.

        Raises:
            ValueError: If a value is not offered by the page.
        """
        if memory not in POLICY_CHOICES:
            raise ValueError(
                f"There is no memory {str(memory)[:60]!r} to choose; there are {', '.join(POLICY_CHOICES)}."
            )
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in (fps, max_frames)):
            raise ValueError("Frames per second and frames at most are numbers.")
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
                    yield info_html("Running: watch it grow in the viewer.")
        finally:
            steps.close()
        status = scene.status
        yield error_html(status.message) if status.state == "failed" else ""


def queue_updates(place: QueueTicket) -> Iterator[str]:
    """Yield messages until the run may start."""
    while before := place.position:
        yield info_html(f"{'One other visitor is' if before == 1 else f'{before} other visitors are'} before you.")
        place.wait(QUEUE_STATUS_INTERVAL)


def get_owner(request: gr.Request) -> str:
    """Return the session id of a request.

    Raises:
        ValueError: If the browser sends no cookie.
    """
    owner = session_id(request.cookies)
    if owner is None:
        raise ValueError(
            "Your browser sent no cookie, by which the page keeps your photos apart from other people's: "
            "allow cookies for this page and reload it."
        )
    return owner


def viewer(scene: Scene, expect_run: bool = False) -> str:
    address = f"scene/{scene.id}/{'?expect-run' if expect_run else ''}"
    return f'<iframe title="3D viewer" src="{address}" allow="camera; fullscreen"></iframe>'


def empty() -> str:
    return '<div class="empty">Choose photos or a video, or click the example:<br>the scene will grow here.</div>'


def error_html(text: str) -> str:
    return f'<div class="problem" role="alert">{html.escape(text)}</div>'


def info_html(text: str) -> str:
    return f'<div class="note">{html.escape(text)}</div>'
