"""Uploads beyond the quota are rejected before they are received."""

import pytest

pytest.importorskip("starlette", reason="the server needs `pip install -r requirements_demo.txt`")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from streamvggt.app import upload_limit
from streamvggt.app.bodies import FORM_BYTES, UPLOAD
from streamvggt.app.hosts import Hosts
from streamvggt.app.request_filter import RequestFilter
from streamvggt.app.upload_limit import UploadRateLimit
from streamvggt.app.visitors import COOKIE


@pytest.fixture
def application(scenes):
    async def upload(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    application = Starlette(routes=[Route(UPLOAD, upload, methods=["POST"])])
    return RequestFilter(
        application, Hosts("testserver"), UploadRateLimit(scenes, upload_bytes=200, max_bytes_per_hour=100)
    )


def upload(application, visitor: str, content):
    client = TestClient(application, cookies={COOKIE: visitor[0] * 32})
    return client.post(UPLOAD, content=content, headers={"content-type": "multipart/form-data"})


def test_the_upload_size_per_user_is_limited(application):
    assert upload(application, "me", bytes(60)).text == "60"
    assert upload(application, "me", bytes(40)).text == "40"
    refused = upload(application, "me", bytes(1))
    assert refused.status_code == 413
    assert "per hour. Try again later" in refused.text
    assert upload(application, "you", bytes(100)).text == "100"


def test_rejected_and_old_uploads_do_not_count(application, monkeypatch):
    assert upload(application, "me", bytes(101)).status_code == 413
    assert upload(application, "me", bytes(100)).status_code == 200
    assert upload(application, "me", bytes(100)).status_code == 413
    monkeypatch.setattr(upload_limit, "WINDOW_SECONDS", -1.0)
    assert upload(application, "me", bytes(100)).status_code == 200


def test_the_disk_space_of_all_uploads_is_limited(application, scenes):
    scenes.max_bytes = 80
    (scenes.new_folder() / "input").write_bytes(bytes(50))
    assert scenes.num_bytes() == 50
    assert upload(application, "me", bytes(30)).status_code == 200
    refused = upload(application, "me", bytes(31))
    assert (refused.status_code, refused.text) == (413, "The disk of the server is full. Try again later.")
    (scenes.new_folder() / "result").write_bytes(bytes(31))
    with pytest.raises(ValueError, match="disk of the server is full"):
        scenes.new("me", "live")


def test_an_upload_of_unknown_length_reserves_the_maximum_size(application, scenes):
    assert upload(application, "me", iter([bytes(10)])).status_code == 413
    application.quota.max_bytes_per_hour = 200 + FORM_BYTES
    assert upload(application, "me", iter([bytes(10)])).text == "10"
    assert upload(application, "me", bytes(200 + FORM_BYTES - 10)).status_code == 200  # only what came has counted
