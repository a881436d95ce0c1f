"""The served page: Gradio's application and the scene routes behind `RequestFilter`."""

import secrets
import signal
import sys
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import cv2
import gradio as gr
from fastapi import FastAPI
from gradio.networking import setup_tunnel

from streamvggt.app.examples import thumbnail_css
from streamvggt.app.gradio_app import PageOptions, theme
from streamvggt.app.hosts import Hosts
from streamvggt.app.receiving import upload_route
from streamvggt.app.request_filter import RequestFilter
from streamvggt.app.scenes import Scenes
from streamvggt.app.server import STATIC, scene_routes
from streamvggt.app.serving import Server
from streamvggt.app.upload_limit import UploadRateLimit

CLEANUP_INTERVAL = 60.0  # seconds between deletions of expired scenes


class Site:
    """The page, served from a thread until it is closed.

    Args:
        blocks: Page of `build_page`.
        host: Address to listen on. The default is local.
        port: Port. None selects the first free port from 7860.
        allow_hosts: As for `Hosts`.

    Attributes:
        address: URL of the page.
    """

    def __init__(
        self,
        blocks: gr.Blocks,
        scenes: Scenes,
        options: PageOptions,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        allow_hosts: Sequence[str] = (),
    ):
        self.scenes = scenes
        self._blocks = blocks
        self._hosts = Hosts(host, allow_hosts)
        limits = options.limits
        app = FastAPI(
            routes=[upload_route(scenes), *scene_routes(scenes)], docs_url=None, redoc_url=None, openapi_url=None
        )
        gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            server_name=host,
            theme=theme(),
            css=thumbnail_css(options.examples),
            css_paths=STATIC / "page.css",
            head='<script type="module" src="viewer/page.js"></script>',
            footer_links=[],
            show_error=False,
            enable_monitoring=False,
            run_history=False,
            ssr_mode=False,
            app_kwargs={"docs_url": None},
        )
        request_filter = RequestFilter(
            app,
            self._hosts,
            UploadRateLimit(scenes, limits.total_bytes, limits.max_bytes_per_hour),
            frozenset(blocks.fns),
            scenes.uploads,
        )
        cv2.setNumThreads(1)  # threads do not speed up small images
        self._server = Server(request_filter, host, port)
        self.address = self._server.address
        blocks.server_port = self._server.port
        self._server.start()
        threading.Thread(target=run_cleanup, args=(scenes,), daemon=True).start()

    def share(self) -> str:
        """Also serve the page at a public gradio.live address and return the address."""
        address = setup_tunnel("127.0.0.1", self._server.port, secrets.token_urlsafe(32), None, None)
        self._hosts.allow(urlsplit(address).netloc)
        return address

    def wait(self) -> None:
        """Serve until Ctrl-C or SIGTERM."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # exit normally, so that temporary files are deleted
        try:
            self._server.wait()
        except KeyboardInterrupt:
            print("The page is closed.")

    def close(self) -> None:
        """Stop the server and delete all user data."""
        self.scenes.remove_all()  # let runs finish while their pages are still served
        self._server.close()
        self._blocks.close()
        self.scenes.close()


def run_cleanup(scenes: Scenes) -> None:
    while scenes.folder.exists():
        scenes.remove_expired()
        time.sleep(CLEANUP_INTERVAL)
