"""Measure the demo page: CPU time per frame beside that of the model, time to the first points, 500 frames.

    python benchmarks/demo.py --weights tiny random:small --out benchmarks/demo.md

Baseline: `for frame in load_frames(clip): session.push(frame)`. Page: the same clip in the running demo, started by a
click in Chromium on the same machine, which downloads everything but draws only the first points. The measured value is
the CPU time of all threads of the program, including the server, without the browser and the thread that controls it.

The program runs on the last core, Chromium on the others. They share caches and memory bandwidth, so the model can be
slower while Chromium computes. The cost of the page is therefore also measured within one run: the CPU time of all
threads minus that of the model (`session.push`) and of reading the clip. Linux only.
"""

import argparse
import os
import shlex
import shutil
import sys
import time
from contextlib import contextmanager

import numpy as np
import torch
from demo_viewer import CLIP, WAIT, measure_viewer
from environment_info import output_path
from playwright.sync_api import Browser, sync_playwright
from tqdm import trange

from streamvggt import VGGT, SlidingWindow, StreamSession, load_frames, load_model
from streamvggt.app.examples import Example
from streamvggt.app.gradio_app import build_page
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.page import PageOptions
from streamvggt.app.scenes import Scenes
from streamvggt.app.site import Site
from streamvggt.flags import whole
from streamvggt.provenance import describe_machine

CHROMIUM_FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
LABEL = "the first and the last 8 frames"
WATCH = """
  addEventListener("click", (event) => { if (event.target.id === "example-0") window.clicked = Date.now(); }, true);
  const watch = () => {
    if (!window.viewer) return setTimeout(watch, 5);
    const { cloud } = viewer, render = cloud.render.bind(cloud);
    cloud.render = (most) => {
      if (window.firstPoints) return; // a visitor's machine would draw; here it would take the network's cores
      render(most);
      if (cloud.frames.length) window.firstPoints = Date.now();
    };
  };
  watch();
"""
"""Runs in the page and in the viewer before their own scripts: records the times of the click and the first points."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="+", default=["tiny"])
    parser.add_argument("--frames", type=whole(), default=48, help="number of frames of the clip (default: all 48)")
    parser.add_argument("--rounds", type=whole(), default=5)
    parser.add_argument(
        "--viewer-frames", type=whole(0), default=500, help="number of frames in the viewer; 0: skip this part"
    )
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--out", type=output_path, required=True)
    arguments = parser.parse_args()
    count_network_time()
    *others, last = sorted(os.sched_getaffinity(0))  # `taskset` limits them
    os.sched_setaffinity(0, others or [last])  # of Chromium and its driver, which inherit the affinity
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which(arguments.chromium), args=CHROMIUM_FLAGS)
        os.sched_setaffinity(0, [last])
        report = [line for name in arguments.weights for line in compare(browser, name, arguments)]
        if arguments.viewer_frames:
            report += measure_viewer(browser, arguments.viewer_frames)
    head = ["# The demo page", "", "```bash", f"python {shlex.join(sys.argv)}", "```", ""]
    cores = "The program used one core, Chromium the others." if others else "Program and Chromium shared one core."
    head += [f"{describe_machine(torch.device('cpu'))}. {cores}", ""]
    arguments.out.write_text("\n".join([*head, *report]), encoding="utf-8")


def which(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise FileNotFoundError(
            f"{program}: not found. Install it (apt-get install chromium), or name its path with --chromium."
        )
    return found


def compare(browser: Browser, weights: str, arguments: argparse.Namespace) -> list[str]:
    """Run model and page alternately. Return lines of the report."""
    model = load_model(weights, causal=True)
    rows = []
    with page_of(model, arguments.frames) as address:
        for _ in trange(arguments.rounds + 1, desc="rounds"):
            alone, reading = bare(model, arguments.frames)
            page, network, wall, first = through_page(browser, address)
            own = page - network - reading
            rows.append((alone, page, network + reading, own, 100 * own / (network + reading), wall, first))
    rows = [*rows[1:], np.median(rows[1:], 0)]  # the first round warms up
    names = [*map(str, range(1, len(rows))), "median"]
    height, width = next(
        iter(load_frames(CLIP, size=model.config.image_size, patch_size=model.patch_size))
    ).image.shape[1:]
    return [
        f"## `{weights}`: the page adds {rows[-1][4]:.0f} % to the CPU time of network and reading",
        "",
        f"{width}×{height}, {arguments.frames} frames of `assets/clip.mp4`, policy `window:1,8`, camera and depth "
        "heads. Milliseconds of CPU time per frame:",
        "",
        "| round | bare | with the page | network, reading | page's own | share, % | page, wall | first points |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {alone:.1f} | {page:.1f} | {theirs:.1f} | {own:.1f} | {share:.0f} | {wall:.0f} | {first:.0f} |"
            for name, (alone, page, theirs, own, share, wall, first) in zip(names, rows, strict=True)
        ),
        "",
        *COLUMNS,
        "",
    ]


COLUMNS = [
    "| column | meaning |",
    "|---|---|",
    "| bare | network and reading without a page, in a run of its own |",
    "| with the page | all threads of the program |",
    "| network, reading | the part of these threads that a bare run has, too |",
    "| page's own, share | the rest, and its ratio to the column before |",
    "| page, wall | wall time per frame, ms |",
    "| first points | wall time from the click on Start until the first points are drawn, ms. Weights are loaded |",
]
NETWORK_SECONDS = [0.0]
"""Processor time of all `session.push` so far."""


def count_network_time() -> None:
    push = StreamSession.push

    def counted(self, *arguments, **options):
        begun = time.thread_time()
        try:
            return push(self, *arguments, **options)
        finally:
            NETWORK_SECONDS[0] += time.thread_time() - begun

    StreamSession.push = counted


@contextmanager
def page_of(model: VGGT, num_frames: int):
    scenes = Scenes()
    options = PageOptions(max_frames=num_frames, examples=[Example("Example", CLIP, LABEL, max_frames=num_frames)])
    site = Site(build_page(ModelRegistry({"network": "network"}, lambda name: model), scenes, options), scenes, options)
    try:
        yield site.address
    finally:
        site.close()


def bare(model: VGGT, num_frames: int) -> tuple[float, float]:
    """Return the CPU time per frame of the session in milliseconds, and that of reading the clip."""
    session = StreamSession(model, policy=SlidingWindow(1, 8), heads=("camera", "depth"))
    frames = load_frames(CLIP, size=model.config.image_size, patch_size=model.patch_size, max_frames=num_frames)
    begun, network = time.process_time(), NETWORK_SECONDS[0]
    count = sum(session.push(frame) is not None for frame in frames)
    took = time.process_time() - begun
    return 1000 * took / count, 1000 * (took - (NETWORK_SECONDS[0] - network)) / count


def through_page(browser: Browser, address: str) -> tuple[float, float, float, float]:
    """Return milliseconds per frame: CPU time, that of the model, wall time, and the time to the first points."""
    context = browser.new_context(viewport={"width": 1280, "height": 760})
    context.set_default_timeout(WAIT)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.goto(address)
    page.locator("#about .note").wait_for(state="attached")
    viewer = page.frame_locator("#viewer iframe")
    begun, network, begun_wall = time_of_others(), NETWORK_SECONDS[0], time.perf_counter()
    page.get_by_role("button", name="Example").click()
    viewer.get_by_text("Done:").wait_for()
    took, took_wall = time_of_others() - begun, time.perf_counter() - begun_wall
    frame = page.query_selector("#viewer iframe").content_frame()
    frame.wait_for_function("window.firstPoints")  # a short clip can be done before
    first = frame.evaluate("firstPoints - parent.clicked")
    count = frame.evaluate("viewer.feed.status.num_frames")
    context.close()
    network = NETWORK_SECONDS[0] - network
    return 1000 * took / count, 1000 * network / count, 1000 * took_wall / count, first


def time_of_others() -> float:
    """Return the CPU time in seconds of all threads but this one, which drives Chromium."""
    return time.process_time() - time.thread_time()


if __name__ == "__main__":
    main()
