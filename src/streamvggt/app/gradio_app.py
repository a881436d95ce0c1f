"""The page around the viewer: what to look at, with which settings, and a button.

Results, progress and everything that can be done with them are in the viewer (`static/`), which talks to the scene
itself (`server.py`); Gradio brings uploads, settings and the look.
"""

import html
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from streamvggt.app.line import Line, Place
from streamvggt.app.networks import Networks
from streamvggt.app.scene import RunSettings, Scene
from streamvggt.app.scenes import Scenes
from streamvggt.app.uploads import UploadLimits, take_uploads
from streamvggt.app.visitors import visitor_of
from streamvggt.stream.frames import load_frames
from streamvggt.stream.policy import DEFAULT_MEMORY

MEMORIES = {
    "recommended": DEFAULT_MEMORY,
    "the first and the last 8 frames": "window:1,8",
    "the first and the last 24 frames": "window:1,24",
    "all frames": "all",
}
GRADIO_EVENTS = 200  # that may wait in Gradio's queue: clicks, and pages being loaded
QUEUE_EVERY = 0.1  # seconds between looks for what visitors have clicked
PROGRESS_EVERY = 1.0  # seconds between looks for what Gradio calls progress, which the page has none of
TELL_EVERY = 2.0  # seconds between signs of life of a run; a page that was closed is noticed then
TELL_WAITING_EVERY = 5.0  # the same of a visitor who waits
logger = logging.getLogger(__name__)

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]

# The viewer rests when nothing is to come; this tells it that something is, and on a phone brings it into sight.
WAKE_VIEWER = """() => {
  const viewer = document.querySelector("#viewer iframe");
  viewer?.contentWindow.postMessage("expect-run", location.origin);
  if (innerWidth < 700) document.querySelector("#viewer").scrollIntoView({ behavior: "smooth" });
}"""

# A camera's viewer comes into the page when its run begins: only then there is something to bring into sight.
EXPECT_VIEWER = "() => { window.expectsViewer = innerWidth < 700; }"
SHOW_VIEWER = """() => {
  if (!window.expectsViewer || !document.querySelector("#viewer iframe")) return;
  window.expectsViewer = false;
  document.querySelector("#viewer").scrollIntoView({ behavior: "smooth" });
}"""

# It has run, or was refused: the viewer need not wait for it any longer.
RUN_IS_OVER = """() => {
  document.querySelector("#viewer iframe")?.contentWindow.postMessage("run-over", location.origin);
}"""


@dataclass(frozen=True)
class PageOptions:
    """max_frames, max_seconds: of a run, at most. examples: names and files to try.

    queue_size: visitors that may wait. at_once: visitors who share the network.
    """

    max_frames: int = 300
    max_seconds: float = 3600.0
    queue_size: int = 8
    at_once: int = 4
    limits: UploadLimits = field(default_factory=UploadLimits)
    examples: Mapping[str, Path] = field(default_factory=dict)


class Page:
    """What the page's buttons do."""

    def __init__(self, networks: Networks, scenes: Scenes, options: PageOptions):
        self.networks = networks
        self.scenes = scenes
        self.options = options
        self.line = Line(options.queue_size, options.at_once)

    def take_files(self, files: list[str] | None, request: gr.Request) -> tuple[str | None, str, str]:
        """A scene of uploaded files: its id, the viewer, what to tell."""
        if not files:
            return None, empty(), ""
        try:
            uploads = self.scenes.uploads.resolve()
            paths = [(uploads / file).resolve() for file in files]
            are_uploads = all(path.is_relative_to(uploads) and path.is_file() for path in paths)
        except (OSError, ValueError):  # no name that a file can have
            are_uploads = False
        if not are_uploads:
            return None, empty(), problem("These files are not here any longer: upload them again.")
        return self._take(paths, request)

    def take_example(self, name: str, request: gr.Request) -> tuple[str | None, str, str]:
        """A scene of the example that a button names."""
        if name not in self.options.examples:
            return None, empty(), problem(f"There is no example {name!r}.")
        return self._take([self.options.examples[name]], request)

    def _take(self, paths: list[Path], request: gr.Request) -> tuple[str | None, str, str]:
        try:
            owner = owner_of(request)
            folder = self.scenes.new_folder()
        except ValueError as error:
            return None, empty(), problem(str(error))
        try:
            upload = take_uploads(paths, folder / "input", self.options.limits)
            scene = self.scenes.new(owner, upload.kind, partial(load_frames, upload.path), folder)
            scene.preview()
        except (ValueError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                logger.warning("an upload could not be taken: %s", error)
                error = "The files could not be stored or read; the log says why."
            return None, empty(), problem(str(error))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return scene.id, viewer(scene), ""

    def find_again(self, request: gr.Request) -> tuple[str | None, str, str]:
        """The scene of a visitor whose page is loaded anew."""
        scene = self.scenes.latest(visitor_of(request.cookies))
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
        """Run the network over the scene; the viewer shows what comes of it."""
        owner = visitor_of(request.cookies)
        if not scene_id or self.scenes.get(scene_id, owner) is None:
            yield problem("Choose photos or a video first, or click the example.")
            return
        try:
            settings = self.settings(weights, memory, fps, max_frames, point_head)
            with self.line.join(self.networks.name_of(weights), owner) as place:
                yield from told_to_wait(place)
                scene = self.scenes.get(scene_id, owner)
                if scene is None:
                    yield problem("You have chosen something else meanwhile, in another window.")
                    return
                yield from self._run(scene, settings)
        except ValueError as error:  # the line is full; or the scene runs already, from another window
            yield problem(str(error))

    def start_camera(
        self,
        weights: str,
        memory: str,
        fps: float,
        max_frames: float,
        point_head: bool,
        request: gr.Request,
    ) -> Iterator[tuple[str | None, str, str]]:
        """Run the network over what the visitor's camera sends: id, viewer, what to tell."""
        try:
            owner = owner_of(request)
            settings = self.settings(weights, memory, fps, max_frames, point_head)
            with self.line.join(self.networks.name_of(weights), owner) as place:
                for told in told_to_wait(place):
                    yield None, empty(), told
                scene = self.scenes.new(owner, "live")
                show = viewer(scene, expect_run=True)
                for told in self._run(scene, settings):
                    yield scene.id, show, told
        except ValueError as error:
            yield None, empty(), problem(str(error))

    def settings(self, weights: str, memory: str, fps: float, max_frames: float, point_head: bool) -> RunSettings:
        """What the form says; `fps` 0 is every frame. Numbers are held to what the page allows.

        Raises:
            ValueError: it says what the page does not offer.
        """
        if memory not in MEMORIES:
            raise ValueError(f"There is no memory {str(memory)[:60]!r} to choose; there are {', '.join(MEMORIES)}.")
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in (fps, max_frames)):
            raise ValueError("Frames per second and frames at most are numbers.")
        return RunSettings(
            weights=weights,
            memory=MEMORIES[memory],
            fps=min(max(float(fps), 0.1), 60.0) if fps else None,
            max_frames=int(min(max(max_frames, 1), self.options.max_frames)),
            point_head=bool(point_head),
            max_seconds=self.options.max_seconds,
        )

    def _run(self, scene: Scene, settings: RunSettings) -> Iterator[str]:
        steps = scene.run(settings, self.networks)
        told = time.monotonic()
        try:
            yield note("Loading the weights …")
            for _ in steps:
                if time.monotonic() - told > TELL_EVERY:
                    told = time.monotonic()
                    yield note("Running: watch it grow in the viewer.")
        finally:
            steps.close()
        status = scene.status
        yield problem(status.message) if status.state == "failed" else ""


def use_own_uploads(files: gr.File) -> None:
    """Have a component give the paths that our own upload route has answered with.

    Gradio would copy the files, and fetch addresses. The paths are the visitor's words: `Page.take_files` checks them.
    A subclass of `gr.File` would make Gradio write a file beside this one.
    """

    def paths(payload: ListFiles | FileData | None) -> list[str] | None:
        if payload is None:
            return None
        return [file.path for file in (payload.root if isinstance(payload, ListFiles) else [payload])]

    files.preprocess = paths
    files.move_resource_to_block_cache = str


def told_to_wait(place: Place) -> Iterator[str]:
    """What to tell a visitor until it is their turn."""
    while before := place.num_before:
        yield note(f"{'One other visitor is' if before == 1 else f'{before} other visitors are'} before you.")
        place.wait(TELL_WAITING_EVERY)


def build_page(networks: Networks, scenes: Scenes, options: PageOptions) -> gr.Blocks:
    """The page; `site.Site` serves it."""
    os.environ["GRADIO_TEMP_DIR"] = str(scenes.uploads)
    page = Page(networks, scenes, options)
    with gr.Blocks(
        title="StreamVGGT: watch the scene grow",
        analytics_enabled=False,
        fill_width=True,
    ) as blocks:
        scene_id = gr.State(None)
        gr.Markdown(
            "# Watch the scene grow\nPhotos, a video or your camera become a 3D scene, frame by frame.", elem_id="title"
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                with gr.Tab("Photos or video"):
                    files = gr.File(
                        label="Photos, a zip of photos, or one video",
                        file_count="multiple",
                        height=150,
                        elem_id="files",
                    )
                    examples = [gr.Button(name, size="sm") for name in options.examples]
                    start = gr.Button("Start", variant="primary", elem_id="start")
                with gr.Tab("Camera"):
                    gr.Markdown("Walk slowly around what you film. Your browser asks whether it may use the camera.")
                    start_camera = gr.Button("Start with the camera", variant="primary", elem_id="start-camera")
                notice = gr.HTML("", elem_id="notice")
                weights = gr.Dropdown(
                    list(networks.menu),
                    value=networks.default,
                    label="Weights",
                    info="Loaded when first used." + (" You may type a path." if networks.any_name else ""),
                    allow_custom_value=networks.any_name,
                    elem_id="weights",
                )
                with gr.Accordion("More settings", open=False):
                    memory = gr.Dropdown(
                        list(MEMORIES),
                        label="The network remembers",
                        info=f"Recommended: {DEFAULT_MEMORY}. All frames: slower and larger with each.",
                        elem_id="memory",
                    )
                    fps = gr.Slider(0, 30, 5, step=1, label="Frames per second of a video", info="0: every frame")
                    max_frames = gr.Slider(
                        1,
                        options.max_frames,
                        min(100, options.max_frames),
                        step=1,
                        label="Frames, at most",
                        elem_id="max-frames",
                    )
                    point_head = gr.Checkbox(False, label="Run the point head, too", info="A second way to the points")
            with gr.Column(scale=4, min_width=320):
                frame = gr.HTML(empty(), elem_id="viewer")

        use_own_uploads(files)
        taken = [scene_id, frame, notice]
        settings = [weights, memory, fps, max_frames, point_head]
        # Visitors wait for the network in our own line, which can say who is before them.
        # Gradio's animation would be drawn all the time, by the processor if need be: the viewer tells how it goes.
        network = {"concurrency_limit": None, "show_progress": "hidden"}
        blocks.load(page.find_again, None, taken)
        files.upload(page.take_files, files, taken, concurrency_limit=2)
        files.clear(page.take_files, files, taken)
        for button in examples:
            button.click(page.take_example, button, taken)
        start.click(None, js=WAKE_VIEWER)
        start.click(page.start, [scene_id, *settings], notice, **network).then(None, js=RUN_IS_OVER)
        start_camera.click(None, js=EXPECT_VIEWER)
        frame.change(None, js=SHOW_VIEWER)
        start_camera.click(page.start_camera, settings, taken, **network)
    blocks.queue(max_size=GRADIO_EVENTS, api_open=False)
    # Gradio's queue looks for work a thousand times a second and for progress a hundred times: 5 % of a core, taken
    # from the network. There is no public way to slow it down.
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = QUEUE_EVERY, PROGRESS_EVERY
    return blocks


def theme() -> gr.Theme:
    """Gradio's own, with fonts that are there and small print that can be read."""
    readable = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
    readable |= {"block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300"}
    return gr.themes.Default(primary_hue="orange", font=FONTS, font_mono=MONO_FONTS).set(**readable)


def owner_of(request: gr.Request) -> str:
    """Who made this request.

    Raises:
        ValueError: the browser keeps no cookies.
    """
    owner = visitor_of(request.cookies)
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


def problem(text: str) -> str:
    return f'<div class="problem" role="alert">{html.escape(text)}</div>'


def note(text: str) -> str:
    return f'<div class="note">{html.escape(text)}</div>'
