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

from streamvggt.app import updates
from streamvggt.app.photos import Photos
from streamvggt.app.scene import Scene
from streamvggt.app.scenes import Scenes
from streamvggt.app.visitors import session_id
from streamvggt.export import ExportOptions

STATIC = Path(__file__).parent / "static"
FILE_NAMES = {"glb": "scene.glb", "ply": "points.ply", "colmap": "colmap.zip", "tum": "trajectory.txt"}
FILE_NAMES |= {"depth": "depth.zip", "video": "preview.mp4", "extra": "extra.zip"}
FILE_NAMES |= {"mesh": "mesh.glb", "nerfstudio": "nerfstudio.zip", "rerun": "scene.rrd"}
GONE = "This scene does not exist or has expired. Reload the page."
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def scene_routes(scenes: Scenes) -> list[Route | Mount]:
    """Return the routes of the table above."""
    pages = ScenePages(scenes)
    routes = [
        Route("/", pages.viewer),
        Route("/updates", pages.updates),
        Route("/preview", pages.preview),
        Route("/photo/{key:int}", pages.photo),
        Route("/photo/{key:int}/remove", pages.remove_photo, methods=["POST"]),
        Route("/depth/{position:int}", pages.depth),
        Route("/queries", pages.queries, methods=["POST"]),
        Route("/stop", pages.stop, methods=["POST"]),
        Route("/camera-frame", pages.camera_frame, methods=["POST"]),
        Route("/export/{kind}", pages.export, methods=["POST"]),
    ]
    # An application of its own answers errors as plain text.
    return [Mount("/scene/{id}", Starlette(routes=routes)), Mount("/viewer", app=StaticFiles(directory=STATIC))]


class ScenePages:
    """Answers to the requests for a scene."""

    def __init__(self, scenes: Scenes):
        self.scenes = scenes
        self._exporting = asyncio.Semaphore(1)  # an export uses a core and much memory
        self._waiting: set[str] = set()  # scenes with a running export

    async def viewer(self, request: Request) -> Response:
        self._scene(request)
        return FileResponse(STATIC / "viewer.html", headers=PRIVATE)

    async def updates(self, request: Request) -> Response:
        scene = self._scene(request)
        status, have = await updates.next_status(
            scene, number(request, "have"), number(request, "run"), request.query_params.get("state", "")
        )
        source = request.query_params.get("source", "depth")
        source = source if source in status.sources else "depth"
        try:
            content = await run_in_threadpool(updates.payload, scene, status, have, source)
        except (OSError, ValueError, IndexError) as error:
            if self.scenes.get(scene.id, session_id(request.cookies)) is scene:
                raise
            raise HTTPException(404, GONE) from error
        return Response(content, media_type="application/octet-stream", headers=PRIVATE)

    async def preview(self, request: Request) -> Response:
        scene = self._scene(request)
        if scene.kind == "live":
            raise HTTPException(404, "A camera has no first image before it runs.")
        return Response(await run_in_threadpool(scene.preview), media_type="image/jpeg", headers=PRIVATE)

    async def photo(self, request: Request) -> Response:
        photos, key = self._photo(request)
        try:
            return Response(await run_in_threadpool(photos.thumbnail, key), media_type="image/jpeg", headers=PRIVATE)
        except Exception as error:  # Pillow's readers raise anything
            raise HTTPException(404, "This photo has no thumbnail.") from error

    async def remove_photo(self, request: Request) -> Response:
        photos, key = self._photo(request)
        try:
            await run_in_threadpool(self._scene(request).change_photos, lambda photos: photos.remove(key))
        except (ValueError, KeyError) as error:
            raise HTTPException(400, str(error)) from error
        return JSONResponse(photos.names(), headers=PRIVATE)

    async def depth(self, request: Request) -> Response:
        """Return depth, confidence and marks of every `step`-th pixel as float32, as `RunOutput.depth`."""
        scene = self._scene(request)
        position, step = request.path_params["position"], max(number(request, "step"), 1)
        if position >= scene.status.num_frames:
            raise HTTPException(404, "This frame does not exist.")
        try:
            values = await run_in_threadpool(scene.output.depth, position, step)
        except (OSError, ValueError, IndexError) as error:  # the next run has deleted the files
            raise HTTPException(404, "This frame does not exist.") from error
        return Response(values.tobytes(), media_type="application/octet-stream", headers=PRIVATE)

    async def queries(self, request: Request) -> Response:
        scene = self._scene(request)
        try:
            points = np.array(await json_of(request), np.float64).reshape(-1, 2)
        except (ValueError, TypeError, OverflowError) as error:
            raise HTTPException(400, "Points: expected a list of [x, y].") from error
        try:
            scene.set_query_points(points)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        return JSONResponse(scene.queries.tolist(), headers=PRIVATE)

    async def camera_frame(self, request: Request) -> Response:
        camera = self._scene(request).camera
        image = await run_in_threadpool(decode_camera_frame, await request.body())
        if image is None or camera is None:
            raise HTTPException(400, "Camera frame: expected a JPEG of at most 4 million pixels.")
        camera.push(image)
        deadline = time.monotonic() + updates.LONG_POLL_TIMEOUT
        while not camera.needs_picture and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return JSONResponse({}, headers=PRIVATE)

    async def stop(self, request: Request) -> Response:
        self._scene(request).stop()
        return JSONResponse({}, headers=PRIVATE)

    async def export(self, request: Request) -> Response:
        scene = self._scene(request)
        kind = request.path_params["kind"]
        try:
            filter = point_filter(await json_of(request))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise HTTPException(400, f"Invalid export settings: {error}") from error
        if scene.id in self._waiting:
            raise HTTPException(429, "Another export of this scene is running. Wait for it.")
        self._waiting.add(scene.id)
        try:
            async with self._exporting:
                path = await run_in_threadpool(scene.export, kind, filter)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        finally:
            self._waiting.discard(scene.id)
        return FileResponse(path, filename=FILE_NAMES[kind], headers=PRIVATE)

    def _scene(self, request: Request) -> Scene:
        scene = self.scenes.get(request.path_params["id"], session_id(request.cookies))
        if scene is None:
            raise HTTPException(404, GONE)
        return scene

    def _photo(self, request: Request) -> tuple[Photos, int]:
        photos, key = self._scene(request).photos, request.path_params["key"]
        if photos is None or all(key != other for other, _ in photos.names()):
            raise HTTPException(404, "This photo does not exist.")
        return photos, key


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
