"""The page around the viewer: what to look at, with which settings, and a button.

Results, progress and everything that can be done with them are in the viewer (`static/`), which talks to the scene
itself (`server.py`); Gradio brings uploads, settings and the look.
"""

import html
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import gradio as gr
from starlette.middleware import Middleware

from streamvggt.app.line import Line, Place
from streamvggt.app.networks import Networks
from streamvggt.app.quota import UploadQuota
from streamvggt.app.scene import RunSettings, Scene
from streamvggt.app.scenes import Scenes
from streamvggt.app.server import STATIC, Visitors, scene_routes, visitor_of
from streamvggt.app.uploads import UploadLimits, take_uploads
from streamvggt.stream.frames import load_frames
from streamvggt.stream.policy import DEFAULT_MEMORY

MEMORIES = {
    "recommended": DEFAULT_MEMORY,
    "the first and the last 8 frames": "window:1,8",
    "the first and the last 24 frames": "window:1,24",
    "all frames": "all",
}
SWEEP_EVERY = 60.0  # seconds between looks for scenes to remove
QUEUE_EVERY = 0.1  # seconds between looks for what visitors have clicked
PROGRESS_EVERY = 1.0  # seconds between looks for what Gradio calls progress, which the page has none of
TELL_EVERY = 2.0  # seconds between signs of life of a run; a page that was closed is noticed then
TELL_WAITING_EVERY = 5.0  # the same of a visitor who waits
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]

# The viewer rests when nothing is to come; this tells it that something is, and on a phone brings it into sight.
WAKE_VIEWER = """() => {
  const viewer = document.querySelector("#viewer iframe");
  viewer?.contentWindow.postMessage("expect-run", location.origin);
  if (innerWidth < 700) document.querySelector("#viewer").scrollIntoView({ behavior: "smooth" });
}"""

# It has run, or was refused: the viewer need not wait for it any longer.
RUN_IS_OVER = """() => {
  document.querySelector("#viewer iframe")?.contentWindow.postMessage("run-over", location.origin);
}"""


@dataclass(frozen=True)
class PageOptions:
    """max_frames: of a run, at most. queue_size: visitors that may wait. examples: names and files to try."""

    max_frames: int = 300
    queue_size: int = 8
    limits: UploadLimits = field(default_factory=UploadLimits)
    examples: Mapping[str, Path] = field(default_factory=dict)


class Page:
    """What the page's buttons do."""

    def __init__(self, networks: Networks, scenes: Scenes, options: PageOptions):
        self.networks = networks
        self.scenes = scenes
        self.options = options
        self.line = Line(options.queue_size)

    def take_files(self, files: list[str] | None, request: gr.Request) -> tuple[str | None, str, str]:
        """A scene of uploaded files: its id, the viewer, what to tell."""
        if not files:
            return None, empty(), ""
        return self._take([Path(file) for file in files], request)

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
            return None, empty(), problem(str(error))
        return scene.id, viewer(scene), problem(f"Left out: {'; '.join(upload.left_out)}") if upload.left_out else ""

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
            with self.line.join() as place:
                yield from told_to_wait(place)
                scene = self.scenes.get(scene_id, owner)
                if scene is None:
                    yield problem("You have chosen something else meanwhile, in another window.")
                    return
                yield from self._run(scene, self.settings(weights, memory, fps, max_frames, point_head))
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
            with self.line.join() as place:
                for told in told_to_wait(place):
                    yield None, empty(), told
                scene = self.scenes.new(owner, "live")
                show = viewer(scene, expect_run=True)
                for told in self._run(scene, self.settings(weights, memory, fps, max_frames, point_head)):
                    yield scene.id, show, told
        except ValueError as error:
            yield None, empty(), problem(str(error))

    def settings(self, weights: str, memory: str, fps: float, max_frames: float, point_head: bool) -> RunSettings:
        """What the form says; `fps` 0 is every frame. Numbers are held to what the page allows."""
        return RunSettings(
            weights=weights,
            memory=MEMORIES.get(memory, memory),
            fps=float(fps) if fps else None,
            max_frames=int(min(max(max_frames or 1, 1), self.options.max_frames)),
            point_head=bool(point_head),
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


def told_to_wait(place: Place) -> Iterator[str]:
    """What to tell a visitor until it is their turn."""
    while before := place.num_before:
        yield note(f"{'One other visitor is' if before == 1 else f'{before} other visitors are'} before you.")
        place.wait(TELL_WAITING_EVERY)


def build_page(networks: Networks, scenes: Scenes, options: PageOptions) -> gr.Blocks:
    """The page; `serve` shows it."""
    os.environ["GRADIO_TEMP_DIR"] = str(scenes.folder / "uploads")
    page = Page(networks, scenes, options)
    with gr.Blocks(
        title="StreamVGGT: watch the scene grow",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(int(SWEEP_EVERY), int(scenes.keep_seconds)),
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

        taken = [scene_id, frame, notice]
        settings = [weights, memory, fps, max_frames, point_head]
        # One network at a time for all visitors; the others wait in our own line, which can say who is before them.
        # Gradio's animation would be drawn all the time, by the processor if need be: the viewer tells how it goes.
        network = {"concurrency_limit": None, "show_progress": "hidden"}
        files.upload(page.take_files, files, taken, concurrency_limit=2)
        files.clear(page.take_files, files, taken)
        for button in examples:
            button.click(page.take_example, button, taken)
        start.click(None, js=WAKE_VIEWER)
        start.click(page.start, [scene_id, *settings], notice, **network).then(None, js=RUN_IS_OVER)
        start_camera.click(page.start_camera, settings, taken, **network)
    blocks.queue(max_size=options.queue_size, api_open=False)
    # Gradio's queue looks for work a thousand times a second and for progress a hundred times: 5 % of a core, taken
    # from the network. There is no public way to slow it down.
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = QUEUE_EVERY, PROGRESS_EVERY
    return blocks


def serve(
    blocks: gr.Blocks,
    scenes: Scenes,
    options: PageOptions,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    block: bool = True,
) -> str:
    """Show the page until Ctrl-C or SIGTERM, then remove everything that visitors brought; its address.

    Args:
        host: address to listen at; the default is this machine only.
        port: None: the first free one from 7860 on, or GRADIO_SERVER_PORT.
        share: also by a public address, through gradio.live.
        block: False: go on at once; the caller closes `blocks` and `scenes`.
    """
    middleware = [Middleware(Visitors), Middleware(UploadQuota, scenes, options.limits.hour_bytes)]
    cv2.setNumThreads(1)  # small pictures gain nothing from threads that wait for each other
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        quiet=not block,
        max_file_size=options.limits.total_bytes,
        theme=theme(),
        css_paths=STATIC / "page.css",
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        app_kwargs={"routes": scene_routes(scenes), "middleware": middleware, "docs_url": None},
    )
    threading.Thread(target=sweep, args=(scenes,), daemon=True).start()
    if block:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # instead of dying at once, with the files left behind
        try:
            blocks.block_thread()
        finally:
            scenes.close()
    return address


def theme() -> gr.Theme:
    """Gradio's own, with fonts that are there and small print that can be read."""
    readable = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
    readable |= {"block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300"}
    return gr.themes.Default(primary_hue="orange", font=FONTS, font_mono=MONO_FONTS).set(**readable)


def sweep(scenes: Scenes) -> None:
    while scenes.folder.exists():
        scenes.sweep()
        time.sleep(SWEEP_EVERY)


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
