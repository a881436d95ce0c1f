"""The viewer alone, on one input: a clip, photos, a camera of this machine, an address."""

import threading
import webbrowser
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Route

from streamvggt.app.networks import Networks
from streamvggt.app.scene import RunSettings, Scene
from streamvggt.app.scenes import NO_OWNER, Scenes
from streamvggt.app.server import scene_routes
from streamvggt.stream.frames import FrameSource


def view(
    open_frames: Callable[..., FrameSource],
    kind: str,
    settings: RunSettings,
    networks: Networks,
    *,
    host: str = "127.0.0.1",
    port: int = 7870,
    open_browser: bool = True,
) -> None:
    """Run the network over the frames and show the scene in a browser until Ctrl-C; nothing is kept.

    Args:
        open_frames: as of `Scene`.
    """
    scenes = Scenes()
    scene = scenes.new(NO_OWNER, kind, open_frames)
    address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/scene/{scene.id}/?expect-run"
    run = threading.Thread(target=run_through, args=(scene, settings, networks), daemon=True)

    class Server(uvicorn.Server):
        async def startup(self, sockets=None) -> None:
            await super().startup(sockets)
            if self.started:
                print(f"The viewer is at {address} (Ctrl-C ends it)", flush=True)
                run.start()
                if open_browser:
                    webbrowser.open(address)

    application = Starlette(
        routes=[Route("/", lambda request: RedirectResponse(f"scene/{scene.id}/?expect-run")), *scene_routes(scenes)]
        if host == "127.0.0.1"
        else scene_routes(scenes)
    )
    try:
        Server(uvicorn.Config(application, host=host, port=port, log_level="warning")).run()
    finally:
        scene.stop()
        scenes.close()


def run_through(scene: Scene, settings: RunSettings, networks: Networks) -> None:
    for _ in scene.run(settings, networks):
        pass
