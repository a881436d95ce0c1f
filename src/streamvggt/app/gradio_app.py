"""The page around the viewer: input, settings and a start button.

The viewer (`static/`) shows results and progress and communicates with the scene directly (`server.py`). Gradio
provides uploads, settings and the layout.
"""

import os

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.page import POLICY_CHOICES, Page, PageOptions, empty
from streamvggt.app.scenes import Scenes
from streamvggt.stream.policy import DEFAULT_POLICY

GRADIO_EVENTS = 200  # maximum number of queued Gradio events: clicks and page loads
QUEUE_EVERY = 0.1  # polling interval of Gradio events in seconds
PROGRESS_EVERY = 1.0  # polling interval of Gradio progress in seconds; the page does not use it
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]

# Resume polling of the idle viewer before a run, and scroll to the viewer on small screens.
WAKE_VIEWER = """() => {
  const viewer = document.querySelector("#viewer iframe");
  viewer?.contentWindow.postMessage("expect-run", location.origin);
  if (innerWidth < 700) document.querySelector("#viewer").scrollIntoView({ behavior: "smooth" });
}"""

# The viewer of a camera is created when the run starts. Scroll to the viewer only then.
EXPECT_VIEWER = "() => { window.expectsViewer = innerWidth < 700; }"
SHOW_VIEWER = """() => {
  if (!window.expectsViewer || !document.querySelector("#viewer iframe")) return;
  window.expectsViewer = false;
  document.querySelector("#viewer").scrollIntoView({ behavior: "smooth" });
}"""

# The run has ended or was rejected, so the viewer stops waiting.
RUN_IS_OVER = """() => {
  document.querySelector("#viewer iframe")?.contentWindow.postMessage("run-over", location.origin);
}"""


def use_own_uploads(files: gr.File) -> None:
    """Make a file component return the paths of this package's upload route.

    By default Gradio copies the files and fetches URLs. The paths are untrusted: `Page.take_files` checks them. A
    subclass of `gr.File` makes Gradio write a file next to this module.
    """

    def paths(payload: ListFiles | FileData | None) -> list[str] | None:
        if payload is None:
            return None
        return [file.path for file in (payload.root if isinstance(payload, ListFiles) else [payload])]

    files.preprocess = paths
    files.move_resource_to_block_cache = str


def build_page(networks: ModelRegistry, scenes: Scenes, options: PageOptions) -> gr.Blocks:
    """Build the page. `site.Site` serves it."""
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
        # Users wait in `RunQueue` instead of Gradio's queue, because it reports their position.
        # Disable Gradio's animation, which uses CPU time. The viewer shows the progress.
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
    # Gradio polls its queue a thousand times per second and its progress a hundred times, which uses 5 % of a core.
    # There is no public API to reduce the rate.
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = QUEUE_EVERY, PROGRESS_EVERY
    return blocks


def theme() -> gr.Theme:
    """Gradio's default theme with system fonts and larger small text."""
    readable = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
    readable |= {"block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300"}
    return gr.themes.Default(primary_hue="orange", font=FONTS, font_mono=MONO_FONTS).set(**readable)
