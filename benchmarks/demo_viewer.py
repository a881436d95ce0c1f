"""Part of demo.py: cost of a long synthetic clip in the viewer of the page."""

import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import uvicorn
from playwright.sync_api import Browser
from starlette.applications import Starlette
from tqdm import trange

from streamvggt import load_frames
from streamvggt.app.packet import pack, updated_ranges
from streamvggt.app.scene import Scene
from streamvggt.app.scenes import NO_OWNER, Scenes
from streamvggt.app.server import scene_routes
from streamvggt.export.result_frame import ResultFrame

CLIP = Path(__file__).parents[1] / "assets" / "clip.mp4"
WAIT = 600_000  # milliseconds


def measure_viewer(browser: Browser, num_frames: int) -> list[str]:
    """Show a synthetic clip of 518×392 in the viewer. Return lines of the report."""
    scenes = Scenes()
    scene = scenes.new(NO_OWNER, "video", partial(load_frames, CLIP))
    write_walk(scene, num_frames)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=scene_routes(scenes)), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    page = browser.new_page(viewport={"width": 1280, "height": 760})
    page.set_default_timeout(WAIT)
    sent = []
    page.on("response", lambda response: sent.append(int(response.headers.get("content-length", 0))))
    begun = time.perf_counter()
    page.goto(f"http://127.0.0.1:{port}/scene/{scene.id}/")
    page.wait_for_function(f"() => viewer.cloud.frames.length === {num_frames} && viewer.cloud.isCalm")
    loaded = time.perf_counter() - begun
    outputs = page.evaluate(INTERACT)
    page.close()
    server.should_exit = True
    thread.join()
    scenes.close()
    return [
        f"## {num_frames} frames of 518×392 in the viewer",
        "",
        "Synthetic frames, all available before the page is opened. The CPU renders (SwiftShader) a window of "
        "1280×760. A machine with a GPU is faster.",
        "",
        "| | |",
        "|---|---|",
        f"| pixels with a depth | {num_frames * 518 * 392 / 1e6:.0f} million |",
        f"| sent | {sum(sent) / 1e6:.0f} MB, {sum(sent) / num_frames / 1e3:.0f} kB per frame |",
        f"| until all frames are received and drawn | {loaded:.1f} s |",
        f"| points held, and drawn when idle | {outputs['points'] / 1e6:.2f} million |",
        f"| memory of the page's script | {outputs['heap'] / 1e6:.0f} MB |",
        f"| images per second while orbiting (5 s) | {outputs['orbit']:.1f} |",
        f"| moving the view: ms between images, median and 95 % | {outputs['median']:.0f}, {outputs['p95']:.0f} |",
        f"| confidence slider: ms until the image is drawn | {outputs['slider']:.0f} |",
        "",
    ]


INTERACT = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const times = [];
  for (let i = 0; i < 60; i++) {
    const begun = performance.now();
    viewer.cloud.camera.position.x += 0.01 * viewer.cloud.scale;
    viewer.cloud.draw();
    await frame(); await frame();
    times.push(performance.now() - begun);
  }
  const { render } = viewer.cloud;
  let images = 0;
  viewer.cloud.render = (most) => { images += 1; render.call(viewer.cloud, most); };
  viewer.cloud.setView("orbit");
  await new Promise((done) => setTimeout(done, 5000));
  viewer.cloud.setView("first");
  const begun = performance.now();
  const slider = document.getElementById("percentile");
  slider.value = 60;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  await frame(); await frame();
  const sorted = times.slice(10).sort((a, b) => a - b);
  return {
    orbit: images / 5,
    slider: performance.now() - begun,
    median: sorted[sorted.length >> 1],
    p95: sorted[Math.floor(0.95 * sorted.length)],
    points: viewer.cloud.frames.reduce((sum, { num }) => sum + num, 0),
    heap: performance.memory.usedJSHeapSize,
  };
}"""


def write_walk(scene: Scene, num_frames: int) -> None:
    """Write the packets of a camera moving along a wavy wall, and the status of a finished run."""
    height, width = 392, 518
    y, x = np.indices((height, width)).astype(np.float32)
    random = np.random.default_rng(0)
    texture = cv2.GaussianBlur(random.uniform(0, 255, (height, 2 * width, 3)).astype(np.float32), (0, 0), 6)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    scene.result_folder.mkdir()
    ranges = None
    for position in trange(num_frames, desc="walk"):
        shift = position * width // num_frames
        pose = np.eye(3, 4)
        pose[0, 3] = -4 * position / num_frames
        depth = 2 + 0.5 * np.sin((x + shift) / 40) + 0.3 * np.cos(y / 30)
        frame = ResultFrame(
            index=position,
            name=f"frame_{position:06d}",
            time=position / 10,
            cam_from_world=pose,
            intrinsics=np.array([[450.0, 0, width / 2], [0, 450.0, height / 2], [0, 0, 1]]),
            original_size=(height, width),
            original_from_image=np.eye(3),
            content=(0, 0, height, width),
            image=np.ascontiguousarray(texture[:, shift : shift + width]),
            depth=depth,
            depth_conf=(1 + depth * random.uniform(0.5, 1, depth.shape)).astype(np.float32),
        )
        ranges = updated_ranges(ranges, frame)
        scene.output.packets.add(position, "depth", pack(frame, position, "depth", ranges, []))
    scene.status = replace(scene.status, state="finished", run=1, num_frames=num_frames, weights="synthetic")
