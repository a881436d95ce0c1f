"""The page around the viewer: input, settings and a start button.

The viewer (`static/`) shows results and progress and communicates with the scene directly (`server.py`). Gradio
provides uploads, settings and the layout.
"""

import os
from dataclasses import dataclass

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
    with gr.Blocks(title="StreamVGGT: watch the scene grow", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown(STEPS, elem_id="title")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                form = create_form(networks, options)
            with gr.Column(scale=4, min_width=320):
                viewer = gr.HTML(empty(), elem_id="viewer")
        connect(blocks, form, viewer, Page(networks, scenes, options))
    blocks.queue(max_size=GRADIO_EVENTS, api_open=False)
    # Gradio polls its queue a thousand times per second and its progress a hundred times, which uses 5 % of a core.
    # There is no public API to reduce the rate.
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = QUEUE_EVERY, PROGRESS_EVERY
    return blocks


@dataclass(frozen=True)
class Form:
    """Input and settings of the page.

    Attributes:
        notice: Messages about photos, videos and examples.
        camera_notice: Messages about the camera.
        about: Description of the selected weights.
    """

    examples: list[gr.Button]
    files: gr.File
    fps: gr.Slider
    start: gr.Button
    notice: gr.HTML
    start_camera: gr.Button
    camera_notice: gr.HTML
    weights: gr.Dropdown
    about: gr.HTML
    memory: gr.Dropdown
    max_frames: gr.Slider
    point_head: gr.Checkbox


def create_form(networks: ModelRegistry, options: PageOptions) -> Form:
    """Create the components at the current place of the page."""
    with gr.Tab("Photos or video"):
        examples = _examples(options)
        files = gr.File(
            label="Photos, a zip of photos, or one video", file_count="multiple", height=140, elem_id="files"
        )
        use_own_uploads(files)
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
        most = options.max_frames
        max_frames = gr.Slider(1, most, min(100, most), step=1, label="Maximum frames", elem_id="max-frames")
        point_head = gr.Checkbox(False, label="Run point head", info="Second source of points, if present")
    return Form(
        examples, files, fps, start, notice, start_camera, camera_notice, weights, about, memory, max_frames, point_head
    )


def connect(blocks: gr.Blocks, form: Form, viewer: gr.HTML, page: Page) -> None:
    """Connect the components with the actions of the page."""
    scene_id = gr.State(None)
    in_address = gr.Textbox("", visible="hidden", show_label=False)
    camera_error = gr.Textbox("", visible="hidden", show_label=False)
    taken = [scene_id, viewer, form.notice]
    settings = [form.weights, form.memory, form.fps, form.max_frames, form.point_head]
    # Users wait in `RunQueue` instead of Gradio's queue, because it reports their position.
    # Disable Gradio's animation, which uses CPU time. The viewer shows the progress.
    network = {"concurrency_limit": None, "show_progress": "hidden"}
    blocks.load(page.find_again, in_address, taken, js=SCENE_IN_ADDRESS, show_progress="hidden")
    blocks.load(page.about_weights, form.weights, form.about, show_progress="hidden")
    form.weights.change(page.about_weights, form.weights, form.about, show_progress="hidden")
    form.about.change(None, js=WEIGHTS_CHANGED)
    viewer.change(None, js=VIEWER_CHANGED)
    upload = form.files.upload(page.take_files, [form.files, scene_id, form.weights], taken, concurrency_limit=2)
    upload.then(lambda: None, None, form.files, show_progress="hidden")
    for button in form.examples:
        button.click(None, js=EXPECT_VIEWER)
        outputs = [*taken, form.memory, form.fps, form.max_frames]
        button.click(page.run_example, [button, form.weights], outputs, **network).then(None, js=RUN_OVER)
    form.start.click(None, js=WAKE_VIEWER)
    form.start.click(page.start, [scene_id, *settings], form.notice, **network).then(None, js=RUN_OVER)
    camera_outputs = [scene_id, viewer, form.camera_notice]
    form.start_camera.click(
        page.start_camera, [camera_error, *settings], camera_outputs, js=OPEN_CAMERA, **network
    ).then(None, js=RUN_OVER)


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
