"""Requests that the filter accepts: hosts, origins, sizes, routes, cookies. docs/security.md names these tests."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the server needs `pip install -r requirements_demo.txt`")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from streamvggt.app import bodies, pressure
from streamvggt.app.bodies import BODY_BYTES, OTHER_BYTES, UPLOAD, BoundedBody, most_bytes
from streamvggt.app.hosts import Hosts
from streamvggt.app.request_filter import RequestFilter
from streamvggt.app.visitors import COOKIE, visitor_in


def run(coroutine: Coroutine) -> None:
    """Run a coroutine in a thread of its own, because Playwright's loop runs in the thread of the tests."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


VISITOR = "v" * 32
JOIN = "/gradio_api/queue/join"


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} {request.cookies.get(COOKIE)}")


def client_of(hosts: Hosts | None = None, base_url: str = "http://localhost:7860") -> TestClient:
    application = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return TestClient(RequestFilter(application, hosts or Hosts("127.0.0.1")), base_url=base_url)


@pytest.mark.parametrize("host", ["localhost", "localhost:7860", "127.0.0.1:1", "[::1]:7860", "LOCALHOST"])
def test_names_of_this_machine_are_accepted(host):
    assert client_of().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "a b", "localhost@evil", "localhost:x", "\xff"]
)
def test_other_host_names_are_rejected(host):
    """A site that rebinds its DNS name to this machine still sends its own name."""
    for name in ("host", "x-forwarded-host"):
        assert client_of().get("/", headers={name: host.encode("latin-1")}).status_code == 403


def test_listed_host_names_are_accepted():
    hosts = Hosts("0.0.0.0", ["demo.example", "lab.example:8443"])
    for host, status in (
        ("demo.example", 200),
        ("demo.example:99", 200),
        ("lab.example:8443", 200),
        ("lab.example", 403),
    ):
        assert client_of(hosts).get("/", headers={"host": host}).status_code == status, host
    with pytest.raises(ValueError, match="--allow-host: expected a host name"):
        Hosts("127.0.0.1", ["https://demo.example"])


def test_the_local_address_of_a_connection_is_accepted():
    hosts = Hosts("0.0.0.0")
    assert hosts.serves("192.168.1.5:7860", "192.168.1.5")
    assert not hosts.serves("192.168.1.5:7860", "172.17.0.2")


FOREIGN = ["http://evil.example", "null", "http://localhost:3000", "https://localhost:7860.evil.example", "", "\xff"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_other_sites_are_rejected_without_credentials(origin):
    headers = {"origin": origin.encode("latin-1"), "access-control-request-method": "POST"}
    for method, path in (("GET", "/"), ("GET", "/gradio_api/queue/data"), ("POST", UPLOAD), ("OPTIONS", UPLOAD)):
        answer = client_of().request(method, path, headers=headers)
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_page_and_listed_origins_are_accepted():
    assert client_of().post(JOIN, json={}, headers={"origin": "http://localhost:7860"}).status_code == 200
    listed = Hosts("127.0.0.1", ["demo.example"])  # a proxy that sends its own name as Host
    for origin, status in (
        ("https://demo.example", 200),
        ("https://demo.example:444", 403),
        ("http://evil.example", 403),
    ):
        assert client_of(listed).post(JOIN, json={}, headers={"origin": origin}).status_code == status, origin


def test_images_and_scripts_of_other_sites_are_rejected():
    """Browsers send no Origin with them."""
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client_of().get("/scene/x/preview", headers=foreign).status_code == 403
    assert client_of().get("/", headers={**foreign, "sec-fetch-mode": "navigate"}).status_code == 200


def test_websockets_are_rejected():
    sent = []

    async def connect() -> None:
        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        await client_of().app({"type": "websocket", "path": "/", "headers": []}, receive, send)

    run(connect())
    assert [message["type"] for message in sent] == ["websocket.close"]


ROUTES = {JOIN: OTHER_BYTES, "/gradio_api/run/x": OTHER_BYTES, "/nowhere": OTHER_BYTES, "/gradio_api/cancel": 4000}
ROUTES |= {
    "/scene/x/queries": 1_000_000,
    "/scene/x/camera-frame": 4_000_000,
    "/scene/x/export/ply": 1_000_000,
    "/scene/x/stop": 1000,
}


@pytest.mark.parametrize(("path", "most"), ROUTES.items())
@pytest.mark.parametrize("is_chunked", [False, True])
def test_every_route_bounds_its_body(path, most, is_chunked):
    assert most_bytes(path, 0) == most
    content = iter([bytes(most), b"x"]) if is_chunked else bytes(most + 1)
    assert client_of().post(path, content=content).status_code == 413
    content = iter([bytes(most)]) if is_chunked else bytes(most)
    assert client_of().post(path, content=content).status_code in (200, 400, 404)
    assert set(BODY_BYTES.values()) <= set(ROUTES.values())


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
def test_a_body_of_any_type_is_bounded(kind):
    assert client_of().post(JOIN, content=bytes(OTHER_BYTES + 1), headers={"content-type": kind}).status_code == 413


@pytest.mark.parametrize(
    ("length", "status"), [("9" * 30, 413), ("-1", 400), ("1e3", 400), ("\xb2", 400), ("10000000", 413)]
)
def test_a_wrong_content_length_is_rejected(length, status):
    answer = client_of().post(JOIN, content=b"x", headers={"content-length": length.encode("latin-1")})
    assert answer.status_code == status


def test_a_body_that_is_too_slow_is_rejected(monkeypatch):
    monkeypatch.setattr(bodies, "BODY_GRACE", 0.01)

    async def never():
        await asyncio.Event().wait()

    with pytest.raises(bodies.HTTPException) as refusal:
        run(BoundedBody(never, 10)())
    assert refusal.value.status_code == 408


def test_routes_that_the_page_does_not_need_are_closed():
    for path in (
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=http://x",
        "/gradio_api/info",
        "/monitoring",
        "/docs",
    ):
        assert client_of().get(path).status_code == 404, path
    for path in ("/gradio_api/run/predict", "/gradio_api/vibe-edit", "/gradio_api/process_recording", "/login"):
        assert client_of().post(path).status_code == 404, path


@pytest.mark.parametrize(
    "others",
    ["", "a=b", "a[b]=c; d", "\xe9=\xff", '"; x="', "=;=;;", f"{COOKIE}=short", "k=" + 20_000 * "v", "a=b, c=d"],
)
def test_other_cookies_do_not_hide_the_session_and_are_not_forwarded(others):
    for cookie in (f"{others}; {COOKIE}={VISITOR}", f"{COOKIE}={VISITOR}; {others}"):
        answer = client_of().get("/", headers={"cookie": cookie.encode("latin-1")})
        assert (answer.status_code, answer.text) == (200, f"0 {VISITOR}")
        assert "set-cookie" not in answer.headers
    alone = client_of().get("/", headers={"cookie": others.encode("latin-1")})
    assert (alone.status_code, alone.text) == (200, "0 None")
    assert COOKIE in alone.headers["set-cookie"]


def test_the_first_valid_session_cookie_is_used():
    assert visitor_in([f"{COOKIE}=x; {COOKIE}={VISITOR}", f"{COOKIE}={'w' * 32}"]) == VISITOR
    assert visitor_in([f"{COOKIE}={'é' * 32}"]) is None


def test_requests_per_user_and_per_address_are_limited(monkeypatch):
    count = pressure.Pressure()
    with count.request("a", "me", True), count.request("a", "me", True):
        with pytest.raises(pressure.HTTPException, match="429"), count.request("a", "me", True):
            pass
        with count.request("a", "you", True):
            pass
    with count.request("a", "me", True):
        pass
    assert not count._in_work
    monkeypatch.setattr(pressure, "PERIOD_REQUESTS", 4)
    with pytest.raises(pressure.HTTPException, match="429"), count.request("a", None, False):
        pass


ODD_JSON = {
    "empty": b"",
    "text": b"hello",
    "null": b"null",
    "a list": b"[]",
    "not UTF-8": b"\xff\xfe",
    "half a surrogate pair": b'{"data": ["\\ud800"], "fn_index": 0}',
    "no number": b'{"data": [NaN], "fn_index": 0}',
    "infinite": b'{"data": [-Infinity], "fn_index": 0}',
    "deep": b'{"data": ' + b"[" * 15_000 + b"]" * 15_000 + b"}",
    "a number of 5000 digits": b'{"data": [' + b"9" * 5000 + b"]}",
    "data that are no list": b'{"data": "x", "fn_index": 0}',
    "no function": b'{"data": []}',
    "an unknown function": b'{"data": [], "fn_index": 9}',
    "a negative function": b'{"data": [], "fn_index": -1}',
    "true for a function": b'{"data": [], "fn_index": true}',
    "a file of the server": b'{"data": [{"path": "/etc/passwd"}], "fn_index": 0}',
    "a URL for a file": b'{"data": [[{"path": "http://127.0.0.1/"}]], "fn_index": 0}',
    "a file beside the uploads": b'{"data": [{"path": "/uploads/../x", "url": null}], "fn_index": 0}',
    "a file in an event": b'{"data": [], "event_data": {"a": [{"path": "/x"}]}, "fn_index": 0}',
    "a path that is none": b'{"data": [{"path": ["/uploads/x"]}, {"path": "/uploads/\\u0000"}], "fn_index": 0}',
}


UPLOADED = b'{"data": [[{"path": "/uploads/a/0000/x.jpg", "meta": {"_type": "gradio.FileData"}}]], "fn_index": 0}'


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/cancel", "/gradio_api/reset/"])
def test_invalid_bodies_are_not_forwarded_to_gradio(path):
    application = Starlette(routes=[Route("/{path:path}", echo, methods=["POST"])])
    request_filter = RequestFilter(application, Hosts("127.0.0.1"), functions={0, 1}, uploads=Path("/uploads"))
    client = TestClient(request_filter, base_url="http://localhost:7860")
    for name, content in ODD_JSON.items():
        assert client.post(path, content=content).status_code in (400, 413), name
    for good in (
        b'{"data": [null, "\xc3\xa9", 1.5], "fn_index": 1, "session_hash": "x"}',
        b'{"event_id": "x"}',
        UPLOADED,
    ):
        assert client.post(path, content=good).status_code == 200
