"""The viewer alone for one input: a video, photos, a local camera or a URL."""

import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress

import cv2
from starlette.applications import Starlette

from streamvggt.app.hosts import Hosts
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.request_filter import RequestFilter
from streamvggt.app.scene import Scene
from streamvggt.app.scenes import NO_OWNER, Scenes
from streamvggt.app.server import scene_routes
from streamvggt.app.serving import Server
from streamvggt.app.status import RunSettings
from streamvggt.export import ResultFrame
from streamvggt.stream.frames import FrameSource


def serve_viewer(
    open_frames: Callable[..., FrameSource],
    kind: str,
    settings: RunSettings,
    networks: ModelRegistry,
    *,
    host: str = "127.0.0.1",
    port: int = 7870,
    open_browser: bool = True,
    hide_edges: bool = True,
    change: Callable[[ResultFrame], ResultFrame] | None = None,
    allow_hosts: Sequence[str] = (),
) -> None:
    """Run the model on the frames and show the scene in a browser until Ctrl-C or SIGTERM.

    Nothing is kept. The URL contains an unguessable id that grants access.

    Args:
        open_frames: As for `Scene`.
        kind: "images", "video" or "live".
        settings: Settings of the run.
        networks: Menu of weights.
        host: Address to listen on.
        port: Port. 0 selects any free port.
        open_browser: Open a browser window.
        hide_edges: Hide points at depth discontinuities at the start. The viewer has a checkbox.
        change: As for `Scene`.
        allow_hosts: As for `Hosts`.
    """
    scenes = Scenes()
    scene = scenes.new(NO_OWNER, kind, open_frames, change=change)
    request_filter = RequestFilter(Starlette(routes=scene_routes(scenes)), Hosts(host, allow_hosts))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # exit normally, so that temporary files are deleted
    cv2.setNumThreads(1)  # threads do not speed up small images
    run = threading.Thread(target=run_scene, args=(scene, settings, networks))
    try:
        server = Server(request_filter, host, port)
        server.start()
        address = f"{server.address}scene/{scene.id}/?expect-run{'' if hide_edges else '&keep-edges'}"
        print(f"The viewer is at {address} (Ctrl-C ends it)", flush=True)
        run.start()
        if open_browser:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            server.wait()
    finally:
        scene.stop()
        if run.is_alive():
            run.join()  # finishes the current frame
        scenes.close()


def run_scene(scene: Scene, settings: RunSettings, networks: ModelRegistry) -> None:
    for _ in scene.run(settings, networks):
        pass
