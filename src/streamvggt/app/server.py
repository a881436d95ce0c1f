"""Scenes over HTTP, for their owners only.

The scene of another user is reported as not found.

    GET  scene/ID/                 the viewer
    GET  scene/ID/updates          status, and packets of new frames
    GET  scene/ID/preview          the first image
    GET  scene/ID/photo/KEY        thumbnail of a photo
    GET  scene/ID/depth/POSITION   depth, confidence and marks of a frame, of every `step`-th pixel
    POST scene/ID/photo/KEY/remove
    POST scene/ID/queries          points to track in the next run
    POST scene/ID/stop
    POST scene/ID/camera-frame     an image of the user's camera; the response requests the next one
    POST scene/ID/export/KIND      a file of the result, created with the viewer's settings
    GET  viewer/FILE               files of the viewer
"""

import asyncio
import io
import struct
import time
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from streamvggt.app.packet import MAX_SCENE_POINTS, pack_arrays, truncate
from streamvggt.app.photos import Photos
from streamvggt.app.scene import Scene
from streamvggt.app.scenes import Scenes
from streamvggt.app.status import Status
from streamvggt.app.visitors import session_id
from streamvggt.choices import PointSource
from streamvggt.export import ExportOptions

STATIC = Path(__file__).parent / "static"
UPDATE_INTERVAL = 0.25  # seconds between responses during a run, to limit the load
POLL_INTERVAL = 0.1  # polling interval in seconds
FIRST_POLL_INTERVAL = 0.03  # shorter interval before the first frame
LONG_POLL_TIMEOUT = 10.0  # seconds until an empty response
UPDATES_BYTES = 3_000_000  # approximate packet bytes per response
FILE_NAMES = {"glb": "scene.glb", "ply": "points.ply", "colmap": "colmap.zip", "tum": "trajectory.txt"}
FILE_NAMES |= {"depth": "depth.zip", "video": "preview.mp4", "extra": "extra.zip"}
FILE_NAMES |= {"mesh": "mesh.glb", "nerfstudio": "nerfstudio.zip", "rerun": "scene.rrd"}
GONE = "This scene does not exist or has expired. Reload the page."
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def scene_routes(scenes: Scenes) -> list[Route | Mount]:
    """Return the routes of the table above."""
    exporting = asyncio.Semaphore(1)  # an export uses a core and much memory
    waiting: set[str] = set()  # scenes with a running export

    def scene_of(request: Request) -> Scene:
        scene = scenes.get(request.path_params["id"], session_id(request.cookies))
        if scene is None:
            raise HTTPException(404, GONE)
        return scene

    async def viewer(request: Request) -> Response:
        scene_of(request)
        return FileResponse(STATIC / "viewer.html", headers=PRIVATE)

    async def updates(request: Request) -> Response:
        scene = scene_of(request)
        have, run = number(request, "have"), number(request, "run")
        source = request.query_params.get("source", "depth")
        known = request.query_params.get("state", "")
        deadline = time.monotonic() + LONG_POLL_TIMEOUT
        while True:
            status = scene.status
            if run != status.run:
                have = 0
            if status.num_frames > have or run != status.run or known != status.state or time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_INTERVAL if have else FIRST_POLL_INTERVAL)
        if have and status.state == "running":
            await asyncio.sleep(UPDATE_INTERVAL)
            status = scene.status if scene.status.run == status.run else status
        source = source if source in status.sources else "depth"
        try:
            content = await run_in_threadpool(updates_payload, scene, status, have, source)
        except (OSError, ValueError, IndexError) as error:
            if scenes.get(scene.id, session_id(request.cookies)) is scene:
                raise
            raise HTTPException(404, GONE) from error
        return Response(content, media_type="application/octet-stream", headers=PRIVATE)

    async def preview(request: Request) -> Response:
        scene = scene_of(request)
        if scene.kind == "live":
            raise HTTPException(404, "A camera has no first image before it runs.")
        return Response(await run_in_threadpool(scene.preview), media_type="image/jpeg", headers=PRIVATE)

    async def photo(request: Request) -> Response:
        photos, key = photos_of(request)
        try:
            return Response(await run_in_threadpool(photos.thumbnail, key), media_type="image/jpeg", headers=PRIVATE)
        except Exception as error:  # Pillow's readers raise anything
            raise HTTPException(404, "This photo has no thumbnail.") from error

    async def remove_photo(request: Request) -> Response:
        photos, key = photos_of(request)
        try:
            await run_in_threadpool(scene_of(request).change_photos, lambda photos: photos.remove(key))
        except (ValueError, KeyError) as error:
            raise HTTPException(400, str(error)) from error
        return JSONResponse(photos.names(), headers=PRIVATE)

    def photos_of(request: Request) -> tuple[Photos, int]:
        photos, key = scene_of(request).photos, request.path_params["key"]
        if photos is None or all(key != other for other, _ in photos.names()):
            raise HTTPException(404, "This photo does not exist.")
        return photos, key

    async def depth(request: Request) -> Response:
        """Return depth, confidence and marks of every `step`-th pixel as float32, as `Scene.depth`."""
        scene = scene_of(request)
        position, step = request.path_params["position"], max(number(request, "step"), 1)
        if position >= scene.status.num_frames:
            raise HTTPException(404, "This frame does not exist.")
        try:
            values = await run_in_threadpool(scene.depth, position, step)
        except (OSError, ValueError, IndexError) as error:  # the next run has deleted the files
            raise HTTPException(404, "This frame does not exist.") from error
        return Response(values.tobytes(), media_type="application/octet-stream", headers=PRIVATE)

    async def queries(request: Request) -> Response:
        scene = scene_of(request)
        try:
            points = np.array(await json_of(request), np.float64).reshape(-1, 2)
        except (ValueError, TypeError, OverflowError) as error:
            raise HTTPException(400, "Points: expected a list of [x, y].") from error
        try:
            scene.set_query_points(points)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        return JSONResponse(scene.queries.tolist(), headers=PRIVATE)

    async def camera_frame(request: Request) -> Response:
        scene = scene_of(request)
        image = await run_in_threadpool(decode_camera_frame, await request.body())
        if image is None or scene.kind != "live":
            raise HTTPException(400, "Camera frame: expected a JPEG of at most 4 million pixels.")
        scene.push_camera_frame(image)
        deadline = time.monotonic() + LONG_POLL_TIMEOUT
        while not scene.needs_camera_frame and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return JSONResponse({}, headers=PRIVATE)

    async def stop(request: Request) -> Response:
        scene_of(request).stop()
        return JSONResponse({}, headers=PRIVATE)

    async def export(request: Request) -> Response:
        scene = scene_of(request)
        kind = request.path_params["kind"]
        try:
            filter = point_filter(await json_of(request))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise HTTPException(400, f"Invalid export settings: {error}") from error
        if scene.id in waiting:
            raise HTTPException(429, "Another export of this scene is running. Wait for it.")
        waiting.add(scene.id)
        try:
            async with exporting:
                path = await run_in_threadpool(scene.export, kind, filter)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        finally:
            waiting.discard(scene.id)
        return FileResponse(path, filename=FILE_NAMES[kind], headers=PRIVATE)

    routes = [
        Route("/", viewer),
        Route("/updates", updates),
        Route("/preview", preview),
        Route("/photo/{key:int}", photo),
        Route("/photo/{key:int}/remove", remove_photo, methods=["POST"]),
        Route("/depth/{position:int}", depth),
        Route("/queries", queries, methods=["POST"]),
        Route("/stop", stop, methods=["POST"]),
        Route("/camera-frame", camera_frame, methods=["POST"]),
        Route("/export/{kind}", export, methods=["POST"]),
    ]
    # An application of its own answers errors as plain text.
    return [Mount("/scene/{id}", Starlette(routes=routes)), Mount("/viewer", app=StaticFiles(directory=STATIC))]


def updates_payload(scene: Scene, status: Status, have: int, source: PointSource) -> bytes:
    """Concatenate packets with length prefixes: the status, and the frames from position `have`."""
    packets = [pack_arrays({**scene.describe(status), "source": source, "first": have}, {})]
    try:
        for position in range(have, status.num_frames):
            packets.append(truncate(scene.packet(position, source), MAX_SCENE_POINTS // status.num_frames))
            if sum(map(len, packets)) > UPDATES_BYTES:
                break
    except (OSError, ValueError, IndexError):
        if scene.status.run == status.run:  # otherwise the next run has deleted the files
            raise
    return b"".join(piece for packet in packets for piece in (struct.pack("<I", len(packet)), packet))


def decode_camera_frame(content: bytes) -> np.ndarray | None:
    """Decode a JPEG of a browser camera to RGB (H, W, 3). Return None if it is invalid or too large."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB")) if image.width * image.height <= 4_000_000 else None
    except Exception:  # Pillow's readers raise anything
        return None


async def json_of(request: Request) -> object:
    """Return the body as JSON.

    Raises:
        ValueError: If the body is invalid or nested too deeply.
    """
    try:
        return await request.json()
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def number(request: Request, name: str) -> int:
    try:
        return max(int(request.query_params.get(name, 0)), 0)
    except ValueError as error:
        raise HTTPException(400, f"{name} is a number") from error


def point_filter(settings: dict) -> ExportOptions:
    """Convert the viewer's export settings to a filter. `frames` are the first and the last position.

    Raises:
        ValueError: If a value is invalid.
        TypeError: If a type is invalid.
        KeyError: If an entry is missing.
    """
    first, last = settings["frames"]
    return ExportOptions(
        point_source=settings["source"],
        conf_percentile=float(settings["conf_percentile"]),
        frames=(int(first), int(last) + 1, None),
        drop_white=bool(settings["drop_white"]),
        drop_black=bool(settings["drop_black"]),
        drop_sky=bool(settings["drop_sky"]),
        drop_edges=bool(settings.get("drop_edges", True)),
    )
