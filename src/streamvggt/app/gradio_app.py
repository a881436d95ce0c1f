"""The page around the viewer: what to look at, with which settings, and a button.

Results, progress and everything that can be done with them are in the viewer (`static/`), which talks to the scene
itself (`server.py`); Gradio brings uploads, settings and the look.
"""

import os

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.page import POLICY_CHOICES, Page, PageOptions, empty
from streamvggt.app.scenes import Scenes
from streamvggt.stream.policy import DEFAULT_POLICY

GRADIO_EVENTS = 200  # that may wait in Gradio's queue: clicks, and pages being loaded
QUEUE_EVERY = 0.1  # seconds between looks for what visitors have clicked
PROGRESS_EVERY = 1.0  # seconds between looks for what Gradio calls progress, which the page has none of
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


def build_page(networks: ModelRegistry, scenes: Scenes, options: PageOptions) -> gr.Blocks:
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
                    list(networks.choices),
                    value=networks.default,
                    label="Weights",
                    info="Loaded when first used." + (" You may type a path." if networks.allow_paths else ""),
                    allow_custom_value=networks.allow_paths,
                    elem_id="weights",
                )
                with gr.Accordion("More settings", open=False):
                    memory = gr.Dropdown(
                        list(POLICY_CHOICES),
                        label="The network remembers",
                        info=f"Recommended: {DEFAULT_POLICY}. All frames: slower and larger with each.",
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
