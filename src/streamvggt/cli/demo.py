"""Serve the demo page: reconstruct photos, a video or a camera in the browser.

streamvggt demo --weights lch01/StreamVGGT
"""

from __future__ import annotations

import argparse
import os
from functools import partial

from streamvggt.app.gradio_app import build_page
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.page import PageOptions
from streamvggt.app.scenes import Scenes
from streamvggt.app.site import Site
from streamvggt.bundled import bundled
from streamvggt.cli.demo_menu import page_examples, weights_menu
from streamvggt.flags import real, whole, word
from streamvggt.model.device import resolve_device, resolve_dtype
from streamvggt.model.threads import load_with_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--share", action="store_true", help="also serve the page at a public gradio.live address")
    parser.add_argument("--host", type=word, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=whole(0, 65_535),
        default=os.environ.get("GRADIO_SERVER_PORT") or None,
        help="port to listen on (default: first free port from 7860)",
    )
    parser.add_argument(
        "--weights",
        type=word,
        action="append",
        default=[],
        metavar="NAME",
        help="additional weights at the top of the menu; repeatable",
    )
    parser.add_argument(
        "--allow-host",
        type=word,
        action="append",
        default=[],
        metavar="NAME",
        help="additional accepted host name; repeatable",
    )
    parser.add_argument(
        "--random-weights", action="store_true", help="add random weights to the menu, for measurements"
    )
    parser.add_argument("--any-weights", action="store_true", help="allow any path or Hub id; only for trusted users")
    parser.add_argument(
        "--max-frames", type=whole(), default=300, help="maximum number of frames per run (default: 300)"
    )
    parser.add_argument(
        "--device", type=word, default="auto", help="cuda, mps or cpu (default: fastest available device)"
    )
    parser.add_argument("--max-minutes", type=real(0.01, 1e6), default=60, help="maximum minutes per run (default: 60)")
    parser.add_argument(
        "--at-once", type=whole(1, 1000), default=4, help="maximum number of concurrent runs (default: 4)"
    )
    parser.add_argument(
        "--stream-gb", type=real(0.01, 1e6), default=16, help="maximum stream memory per run in GB (default: 16)"
    )
    parser.add_argument(
        "--queue-size", type=whole(0, 100_000), default=8, help="maximum number of queued users (default: 8)"
    )
    parser.add_argument(
        "--expire-minutes",
        type=real(0.01, 1e6),
        default=60,
        metavar="MINUTES",
        help="minutes until an inactive scene is deleted (default: 60)",
    )
    parser.add_argument(
        "--disk-limit-gb",
        type=real(0.01, 1e6),
        default=20,
        metavar="GB",
        help="maximum disk space of uploads and results (default: 20)",
    )


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    device = resolve_device(arguments.device)
    load = partial(load_with_threads, causal=True, device=device, dtype=resolve_dtype("auto", device))
    # Gradio uses these environment variables as defaults. A Space sets them.
    host = arguments.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    share = arguments.share or os.environ.get("GRADIO_SHARE", "").lower() == "true"
    hosts = [*arguments.allow_host, *filter(None, [os.environ.get("SPACE_HOST")])]
    choices, infos = weights_menu(arguments.weights, arguments.random_weights)
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
            port=arguments.port or None,
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
