"""View a growing reconstruction in the browser from photos, a video, a webcam or a URL.

streamvggt view clip.mp4 --weights tiny
streamvggt view 0
streamvggt view clip.mp4 --rerun
streamvggt view rtsp://camera.local/stream --fps 2
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from streamvggt.cli.run_messages import warn_unfit_weights
from streamvggt.export import Adjustments, ExportOptions, ResultFrame, camera_change
from streamvggt.extras import require
from streamvggt.model.device import resolve_device, resolve_dtype
from streamvggt.model.fingerprint import count_parameters
from streamvggt.model.weights import load_with_threads
from streamvggt.stream.frames import load_frames
from streamvggt.stream.policy import parse_policy
from streamvggt.stream.video import URL


def run(arguments: argparse.Namespace, argv: list[str]) -> int:
    change = camera_change(Adjustments(intrinsics=arguments.intrinsics, fov=arguments.fov))
    warn_unfit_weights(arguments.weights, arguments.input)
    if arguments.rerun:
        return run_rerun(arguments, change)
    from streamvggt.app.model_registry import ModelRegistry
    from streamvggt.app.status import RunSettings
    from streamvggt.app.viewer import serve_viewer

    parse_policy(arguments.policy)
    count_parameters(arguments.weights)  # report missing weights before the server starts
    device = resolve_device(arguments.device)
    is_camera = bool(URL.match(arguments.input)) or arguments.input.isdecimal()
    # Report a missing input before the server starts. Cameras are opened only once.
    kind = "live" if is_camera else load_frames(arguments.input, max_frames=arguments.max_frames).kind
    if kind == "images" and arguments.fps is not None:
        raise ValueError("--fps: photos have no times")
    load = partial(
        load_with_threads,
        causal=True,
        device=device,
        dtype=resolve_dtype("auto", device, partial(count_parameters, arguments.weights)),
    )
    serve_viewer(
        partial(load_frames, arguments.input),
        kind,
        RunSettings(
            weights=arguments.weights,
            policy=arguments.policy,
            fps=arguments.fps,
            max_frames=arguments.max_frames,
            point_head=arguments.point_head,
        ),
        ModelRegistry({arguments.weights: arguments.weights}, load),
        host=arguments.host,
        port=arguments.port,
        open_browser=not arguments.no_browser,
        hide_edges=arguments.drop_edges,
        change=change,
        allow_hosts=arguments.allow_host,
    )
    return 0


def run_rerun(arguments: argparse.Namespace, change: Callable[[ResultFrame], ResultFrame]) -> int:
    """Show the scene in the rerun viewer."""
    from streamvggt.cli.view_rerun import view_in_rerun

    require("rerun", "rerun")  # report a missing package before the weights are loaded
    device = resolve_device(arguments.device)
    heads = ("camera", "depth", "points") if arguments.point_head else ("camera", "depth")
    dtype = resolve_dtype("auto", device, partial(count_parameters, arguments.weights))
    model = load_with_threads(arguments.weights, causal=True, heads=heads, device=device, dtype=dtype)
    frames = load_frames(
        arguments.input,
        size=model.config.image_size,
        patch_size=model.patch_size,
        fps=arguments.fps,
        max_frames=arguments.max_frames,
    )
    options = ExportOptions(point_source="head" if arguments.point_head else "depth", drop_edges=arguments.drop_edges)
    view_in_rerun(frames, model, arguments.policy, options, change)
    return 0
