"""The page around the viewer: input, settings and a start button.

The viewer (`static/`) shows results and progress and communicates with the scene directly (`server.py`). Gradio
provides uploads, settings and the layout.
"""

import os

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.page import POLICY_CHOICES, Page, PageOptions, about_html, empty
from streamvggt.app.scenes import Scenes
from streamvggt.stream.policy import DEFAULT_POLICY

GRADIO_EVENTS = 200  # maximum number of queued Gradio events: clicks and page loads
QUEUE_EVERY = 0.1  # polling interval of Gradio events in seconds
PROGRESS_EVERY = 1.0  # polling interval of Gradio progress in seconds; the page does not use it
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]

STEPS = """# Watch the scene grow
1. Click an example, or choose [photos or a video](#files) or your [camera](#start-camera).
2. Press [Start](#start). The [scene](#viewer) grows frame by frame.
3. Turn, measure and download it. Method: [StreamVGGT](https://arxiv.org/abs/2507.11539),
   [weights](https://huggingface.co/lch01/StreamVGGT)."""

# The page's functions (`static/page.js`) in Gradio's events.
SCENE_IN_ADDRESS = "() => [new URLSearchParams(location.hash.slice(1)).get('scene') ?? '']"
OPEN_CAMERA = "async (_, ...settings) => [await page.openCamera(), ...settings]"
WAKE_VIEWER, RUN_OVER = "() => page.wakeViewer()", "() => page.runOver()"
WEIGHTS_CHANGED = "() => page.weightsChanged()"
EXPECT_VIEWER, VIEWER_CHANGED = "() => page.expectViewer()", "() => page.viewerChanged()"


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
        in_address = gr.Textbox("", visible="hidden", show_label=False)
        camera_error = gr.Textbox("", visible="hidden", show_label=False)
        gr.Markdown(STEPS, elem_id="title")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                with gr.Tab("Photos or video"):
                    examples = _examples(options)
                    files = gr.File(
                        label="Photos, a zip of photos, or one video",
                        file_count="multiple",
                        height=140,
                        elem_id="files",
                    )
                    fps = gr.Slider(0, 30, 5, step=1, label="Frames per second", info="Of a video. 0: every frame")
                    start = gr.Button("Start", variant="primary", elem_id="start")
                    notice = gr.HTML("", elem_id="notice", elem_classes="notice")
                with gr.Tab("Camera"):
                    gr.Markdown("Walk slowly around the scene. The browser asks for access to the camera.")
                    start_camera = gr.Button("Start with the camera", variant="primary", elem_id="start-camera")
                    camera_notice = gr.HTML("", elem_id="camera-notice", elem_classes="notice")
                weights = _weights_menu(networks)
                about = gr.HTML(about_html(networks, networks.default), elem_id="about")
                with gr.Accordion("More settings", open=False):
                    memory = gr.Dropdown(
                        list(POLICY_CHOICES),
                        label="Eviction policy",
                        info=f"Recommended: {DEFAULT_POLICY}. All frames: time and memory grow with each frame.",
                        elem_id="memory",
                    )
                    max_frames = gr.Slider(
                        1,
                        options.max_frames,
                        min(100, options.max_frames),
                        step=1,
                        label="Maximum frames",
                        elem_id="max-frames",
                    )
                    point_head = gr.Checkbox(False, label="Run point head", info="Second source of points, if present")
            with gr.Column(scale=4, min_width=320):
                frame = gr.HTML(empty(), elem_id="viewer")

        use_own_uploads(files)
        taken = [scene_id, frame, notice]
        settings = [weights, memory, fps, max_frames, point_head]
        # Users wait in `RunQueue` instead of Gradio's queue, because it reports their position.
        # Disable Gradio's animation, which uses CPU time. The viewer shows the progress.
        network = {"concurrency_limit": None, "show_progress": "hidden"}
        blocks.load(page.find_again, in_address, taken, js=SCENE_IN_ADDRESS)
        blocks.load(page.about_weights, weights, about, show_progress="hidden")
        weights.change(page.about_weights, weights, about, show_progress="hidden")
        about.change(None, js=WEIGHTS_CHANGED)
        upload = files.upload(page.take_files, [files, scene_id, weights], taken, concurrency_limit=2)
        upload.then(lambda: None, None, files, show_progress="hidden")
        for button in examples:
            button.click(None, js=EXPECT_VIEWER)
            outputs = [*taken, memory, fps, max_frames]
            button.click(page.run_example, [button, weights], outputs, **network).then(None, js=RUN_OVER)
        start.click(None, js=WAKE_VIEWER)
        start.click(page.start, [scene_id, *settings], notice, **network).then(None, js=RUN_OVER)
        frame.change(None, js=VIEWER_CHANGED)
        start_camera.click(
            page.start_camera, [camera_error, *settings], [scene_id, frame, camera_notice], js=OPEN_CAMERA, **network
        ).then(None, js=RUN_OVER)
    blocks.queue(max_size=GRADIO_EVENTS, api_open=False)
    # Gradio polls its queue a thousand times per second and its progress a hundred times, which uses 5 % of a core.
    # There is no public API to reduce the rate.
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = QUEUE_EVERY, PROGRESS_EVERY
    return blocks


def _examples(options: PageOptions) -> list[gr.Button]:
    """Create the buttons of the examples. `examples.thumbnail_css` adds the images."""
    with gr.Row(elem_id="examples"):
        return [
            gr.Button(example.label, elem_id=f"example-{number}", elem_classes="example", size="sm", min_width=60)
            for number, example in enumerate(options.examples)
        ]


def _weights_menu(networks: ModelRegistry) -> gr.Dropdown:
    labels = [
        (f"{label} ({about})" if (about := networks.info(label).about) else label, label) for label in networks.choices
    ]
    return gr.Dropdown(
        labels,
        value=networks.default,
        label="Weights",
        info="Loaded on first use." + (" You can enter a path." if networks.allow_paths else ""),
        allow_custom_value=networks.allow_paths,
        elem_id="weights",
    )


def theme() -> gr.Theme:
    """Gradio's default theme with system fonts and larger small text."""
    readable = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
    readable |= {"block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300"}
    return gr.themes.Default(primary_hue="orange", font=FONTS, font_mono=MONO_FONTS).set(**readable)
