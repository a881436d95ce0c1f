"""Serve the demo page: reconstruct photos, a video or a camera in the browser.

streamvggt demo --weights lch01/StreamVGGT
"""

from __future__ import annotations

import argparse
import os
from functools import partial

from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.scenes import Scenes
from streamvggt.bundled import bundled
from streamvggt.cli.demo_menu import page_examples, weights_menu
from streamvggt.flags import whole
from streamvggt.model.device import resolve_device, resolve_dtype
from streamvggt.model.weights import load_with_threads

GRADIO_NUMBERS = ("GRADIO_SERVER_PORT", "GRADIO_NUM_PORTS", "GRADIO_NODE_NUM_PORTS", "GRADIO_ANALYTICS_MAX_EVENTS")
"""Environment variables that Gradio converts to numbers when it is imported."""


def check_environment() -> None:
    """Check the environment variables of Gradio.

    Raises:
        ValueError: If a value is invalid. Gradio ends with a traceback or ignores the value.
    """
    for name in GRADIO_NUMBERS:
        try:
            whole(0, 65_535)(os.environ.get(name, "0"))
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"{name}: {error}. Correct or unset the variable.") from error
    if (value := os.environ.get("GRADIO_SHARE", "")).lower() not in ("", "true", "false"):
        raise ValueError(f"GRADIO_SHARE: expected true or false, got {value!r:.40}. Correct or unset the variable.")


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    check_environment()
    from streamvggt.app.gradio_app import build_page
    from streamvggt.app.page import PageOptions
    from streamvggt.app.site import Site

    device = resolve_device(arguments.device)
    load = partial(load_with_threads, causal=True, device=device, dtype=resolve_dtype("auto", device))
    # Gradio uses these environment variables as defaults. A Space sets them.
    host = arguments.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    share = arguments.share or os.environ.get("GRADIO_SHARE", "").lower() == "true"
    hosts = [*arguments.allow_host, *filter(None, [os.environ.get("SPACE_HOST")])]
    choices, infos = weights_menu(arguments.weights, arguments.random_weights)
    port = arguments.port
    if port is None:
        port = int(os.environ.get("GRADIO_SERVER_PORT", "0")) or None
    networks = ModelRegistry(
        choices,
        load,
        allow_paths=arguments.any_weights,
        stream_bytes=int(1e9 * arguments.stream_gb),
        infos=infos,
    )
    options = PageOptions(
        max_frames=arguments.max_frames,
        max_seconds=60 * arguments.max_minutes,
        queue_size=arguments.queue_size,
        at_once=arguments.at_once,
        examples=page_examples(bundled("assets")),
    )
    scenes = Scenes(ttl_seconds=60 * arguments.expire_minutes, max_bytes=int(1e9 * arguments.disk_limit_gb))
    try:
        site = Site(
            build_page(networks, scenes, options),
            scenes,
            options,
            host=host,
            port=port,
            allow_hosts=hosts,
        )
    except BaseException:
        scenes.close()
        raise
    try:
        print(f"The page is at {site.address} (Ctrl-C ends it)", flush=True)
        if share:
            print(f"and at {site.share()}", flush=True)
        site.wait()
    finally:
        site.close()
    return 0
