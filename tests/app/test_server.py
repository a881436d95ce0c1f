"""Scenes over HTTP: to their owners only, in the binary form that the viewer reads."""

import io
import json
import shutil
import struct

import numpy as np
import pytest
from browser import ROOT
from PIL import Image

pytest.importorskip("httpx", reason="the server needs `pip install -r requirements_demo.txt`")
pytest.importorskip("starlette", reason="the server needs `pip install -r requirements_demo.txt`")

from functools import partial

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from streamvggt.app import updates
from streamvggt.app.hosts import Hosts
from streamvggt.app.packet import pixel_marks
from streamvggt.app.request_filter import RequestFilter
from streamvggt.app.server import GONE, scene_routes
from streamvggt.app.status import RunSettings
from streamvggt.app.visitors import COOKIE
from streamvggt.export import ReconstructionResult
from streamvggt.stream.frames import load_frames

FILTER = {"source": "depth", "conf_percentile": 20, "frames": [0, 1]}
FILTER |= {"drop_white": False, "drop_black": False, "drop_sky": False}


@pytest.fixture
def application(scenes, monkeypatch):
    monkeypatch.setattr(updates, "LONG_POLL_TIMEOUT", 0.05)
    home = Route("/", lambda request: PlainTextResponse("home"))
    return RequestFilter(Starlette(routes=[home, *scene_routes(scenes)]), Hosts("testserver"))


@pytest.fixture
def client(application):
    client = TestClient(application)
    client.get("/")
    return client


@pytest.fixture
def scene(scenes, client, networks):
    scene = scenes.new(client.cookies[COOKIE], "video", partial(load_frames, ROOT / "assets" / "clip.mp4"))
    for _ in scene.run(RunSettings("small", max_frames=3), networks):
        pass
    return scene


def packets(content: bytes) -> list[dict]:
    """The headers of the packets in an answer."""
    headers = []
    while content:
        size, length = struct.unpack_from("<II", content)
        headers.append(json.loads(content[8 : 8 + length]))
        content = content[4 + size :]
    return headers


def test_updates_contain_the_status_and_the_missing_frames(client, scene):
    status, *frames = packets(client.get(f"/scene/{scene.id}/updates?have=0&run=0").content)
    assert (status["state"], status["run"], status["num_frames"]) == ("finished", 1, 3)
    assert [frame["position"] for frame in frames] == [0, 1, 2]
    _, *frames = packets(client.get(f"/scene/{scene.id}/updates?have=2&run=1&state=finished").content)
    assert [frame["position"] for frame in frames] == [2]
    _, *frames = packets(client.get(f"/scene/{scene.id}/updates?have=3&run=1&state=finished").content)
    assert frames == []


def test_the_size_of_an_update_is_bounded(client, scene, monkeypatch):
    monkeypatch.setattr(updates, "UPDATES_BYTES", 1)
    assert len(packets(client.get(f"/scene/{scene.id}/updates").content)) == 2


ROUTES = ["", "updates", "preview", "depth/0"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_scene_of_another_user_is_not_found(client, application, scene, route):
    answer = client.get(f"/scene/{scene.id}/{route}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
    stranger = TestClient(application)
    assert stranger.get(f"/scene/{scene.id}/{route}").status_code == 404
    stranger.get("/")
    assert stranger.cookies[COOKIE] != client.cookies[COOKIE]
    assert stranger.get(f"/scene/{scene.id}/{route}").status_code == 404


def test_another_user_can_neither_change_nor_download_a_scene(application, scene):
    stranger = TestClient(application)
    stranger.get("/")
    for route, body in (("stop", None), ("camera-frame", None), ("queries", [[0.5, 0.5]]), ("export/glb", FILTER)):
        answer = stranger.post(f"/scene/{scene.id}/{route}", json=body)
        assert (answer.status_code, answer.text) == (404, GONE)
    assert len(scene.queries) == 0


def test_the_depth_equals_the_stored_depth(client, scene):
    values = np.frombuffer(client.get(f"/scene/{scene.id}/depth/1").content, "<f4").reshape(3, 42, 56)
    np.testing.assert_array_equal(values, scene.output.depth(1))
    stored = ReconstructionResult(scene.result_folder)[1]
    np.testing.assert_array_equal(values[0], stored.depth)
    np.testing.assert_array_equal(values[2], pixel_marks(stored, "depth"))


def test_depth_of_every_fourth_pixel_has_the_marks_of_all_pixels(client, scene):
    values = np.frombuffer(client.get(f"/scene/{scene.id}/depth/1?step=4").content, "<f4").reshape(3, 11, 14)
    full = scene.output.depth(1)
    np.testing.assert_array_equal(values[:2], full[:2, ::4, ::4])
    for y, x in np.ndindex(11, 14):
        block = full[2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].astype(int)
        assert values[2, y, x] == np.bitwise_or.reduce(block, axis=None)
    assert client.get(f"/scene/{scene.id}/depth/3").status_code == 404


def test_the_step_of_the_depth_does_not_determine_the_memory(client, scene):
    values = np.frombuffer(client.get(f"/scene/{scene.id}/depth/1?step={10**12}").content, "<f4")
    full = scene.output.depth(1)
    np.testing.assert_array_equal(values[:2], full[:2, 0, 0])
    assert values[2] == np.bitwise_or.reduce(full[2].astype(int), axis=None)


def test_exports_use_the_settings_of_the_viewer(client, scene):
    answer = client.post(f"/scene/{scene.id}/export/ply", json=FILTER)
    assert 'filename="points.ply"' in answer.headers["content-disposition"]
    assert answer.content.startswith(b"ply")
    answer = client.post(f"/scene/{scene.id}/export/ply", json={**FILTER, "conf_percentile": 100})
    assert answer.status_code == 400
    assert "percentile is at least 0 and below 100" in answer.text
    assert client.post(f"/scene/{scene.id}/export/exe", json=FILTER).status_code == 400
    assert client.post(f"/scene/{scene.id}/export/ply", json=[]).status_code == 400


@pytest.mark.parametrize("deleted", ["", "frames/000001.npz", "images"])
def test_an_export_whose_files_a_new_run_deletes_is_rejected_without_a_path(client, scene, deleted):
    path = scene.result_folder / deleted
    path.unlink() if path.is_file() else shutil.rmtree(path)
    answer = client.post(f"/scene/{scene.id}/export/colmap", json={**FILTER, "frames": [0, 2]})
    assert answer.status_code == 400
    assert str(scene.folder) not in answer.text


def test_the_camera_is_asked_for_the_next_image_when_the_last_was_taken(client, scenes, networks):
    scene = scenes.new(client.cookies[COOKIE], "live")
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(buffer, "JPEG", quality=95)
    assert client.post(f"/scene/{scene.id}/camera-frame", content=buffer.getvalue()).status_code == 200
    assert not scene.camera.needs_picture
    run = scene.run(RunSettings("small", max_frames=1), networks)
    assert [status.num_frames for status in run] == [0, 1, 1]
    assert scene.camera.needs_picture
    assert np.abs(ReconstructionResult(scene.result_folder)[0].image.astype(int) - (200, 30, 30)).max() < 6
    assert client.post(f"/scene/{scene.id}/camera-frame", content=b"GIF89a").status_code == 400
    assert client.post(f"/scene/{scene.id}/camera-frame", content=bytes(4_000_001)).status_code == 413


def test_json_of_any_depth_and_any_numbers_is_rejected_in_words(client, scene):
    for body in (
        "[" * 100_000 + "]" * 100_000,
        "[[1e999, 0]]",
        f"[[{'9' * 400}, 0]]",
        "\udcff",
        "null",
        "",
        "[[NaN, 0]]",
    ):
        for route in ("queries", "export/ply"):
            answer = client.post(f"/scene/{scene.id}/{route}", content=body.encode("utf-8", "surrogateescape"))
            assert answer.status_code == 400, body[:20]
    settings = {**FILTER, "frames": [0, float("inf")]}
    assert client.post(f"/scene/{scene.id}/export/ply", content=json.dumps(settings)).status_code == 400


@pytest.mark.parametrize("body", ["text", {"a": 1}, [[1, 2, 3]], [[0.5, 0.5]] * 65, [["x", 0]]])
def test_invalid_points_are_rejected(client, scene, body):
    assert client.post(f"/scene/{scene.id}/queries", json=body).status_code == 400
    assert len(scene.queries) == 0


def test_cookies_are_hidden_from_scripts_and_made_for_frames_only_behind_https(application):
    cookie = TestClient(application).get("/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    cookie = TestClient(application).get("/", headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
    assert "SameSite=None; Secure; Partitioned" in cookie


@pytest.mark.parametrize("path", ["/gradio_api/file=/etc/passwd", "/file=x", "/gradio_api/file=http://localhost/"])
def test_the_file_routes_of_gradio_are_closed(client, path):
    assert client.get(path).status_code == 404


def test_nothing_outside_the_viewers_folder_is_served(client):
    assert client.get("/viewer/viewer.js").status_code == 200
    assert client.get("/viewer/../server.py").status_code == 404
    assert client.get("/viewer/%2e%2e/server.py").status_code == 404
