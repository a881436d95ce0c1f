"""The whole page over HTTP, as hostile visitors use it. docs/security.md names these tests."""

import http.client
import resource
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio", reason="the page needs `pip install -r requirements_demo.txt`")
pytest.importorskip("httpx", reason="the page needs `pip install -r requirements_demo.txt`")

import httpx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from streamvggt.app import serving
from streamvggt.app.page import Page, PageOptions
from streamvggt.app.serving import Server
from streamvggt.app.visitors import COOKIE

UPLOAD = "/gradio_api/upload"
JOIN = "/gradio_api/queue/join"
REQUEST = SimpleNamespace(cookies={COOKIE: "v" * 32})


@pytest.fixture
def client(site):
    with httpx.Client(base_url=site.address) as client:
        client.get("/")
        yield client


def test_the_page_comes_with_a_cookie_and_its_parts(client):
    assert COOKIE in client.cookies
    for path in ("/", "/config", "/theme.css", "/viewer/viewer.js"):
        assert client.get(path).status_code == 200, path


def test_other_hosts_and_origins_reach_nothing_of_the_page(client):
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        for method, path in (("GET", "/"), ("GET", "/config"), ("POST", UPLOAD), ("POST", JOIN), ("OPTIONS", JOIN)):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


def test_a_large_request_takes_no_memory(client):
    head = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'

    def body():
        yield head
        for _ in range(50):
            yield bytes(1_000_000)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for headers in ({}, {"content-length": str(50_000_000 + len(head))}):
        headers["content-type"] = "multipart/form-data; boundary=x"
        assert client.post(JOIN, content=body(), headers=headers).status_code == 413
    assert client.post(UPLOAD, content=body(), headers=headers).status_code == 400  # a field that is no file
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 20_000_000


def test_each_upload_has_a_folder_of_its_own(client, site):
    files = [("files", ("../../IMG 1.jpg", b"one")), ("files", ("IMG 1.jpg", b"two")), ("files", ("\u7167.png", b""))]
    answer = client.post(UPLOAD, files=files)
    assert answer.status_code == 200
    paths = [Path(path) for path in answer.json()]
    assert [path.name for path in paths] == ["IMG 1.jpg", "IMG 1.jpg", "\u7167.png"]
    assert [path.read_bytes() for path in paths] == [b"one", b"two", b""]
    assert all(path.is_relative_to(site.scenes.uploads) for path in paths)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nhalf',
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="' + 9000 * b"a" + b'"\r\n\r\n1\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nfield\r\n--x--\r\n',
        b"--x\r\n\r\nno header\r\n--x--\r\n",
    ],
)
def test_a_broken_upload_leaves_nothing(client, site, body):
    before = {path for path in site.scenes.uploads.rglob("*") if path.is_file()}
    answer = client.post(UPLOAD, content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 413)
    assert str(site.scenes.folder) not in answer.text
    assert {path for path in site.scenes.uploads.rglob("*") if path.is_file()} == before


def test_only_uploaded_files_become_scenes(networks, scenes, photos):
    page = Page(networks, scenes, PageOptions())
    outside = [
        str(photos[0]),
        "/etc/passwd",
        "/nowhere",
        "http://127.0.0.1/",
        f"{scenes.uploads}/../x",
        "assets/clip.mp4",
    ]
    outside += ["a\0b", 5000 * "a", "", ".", ".."]
    told = {page.take_files([path], None, "small", REQUEST)[2] for path in outside}
    assert len(told) == 1  # nothing tells which of them exist
    assert "Upload them again" in told.pop()
    scenes.uploads.mkdir()
    mine = photos[0].rename(scenes.uploads / "mine.jpg")
    assert page.take_files([mine.name], None, "small", REQUEST)[2] == ""


def test_unreadable_files_replace_no_scene(networks, scenes, photos):
    page = Page(networks, scenes, PageOptions())
    earlier = [scenes.new("v" * 32, "live") for _ in range(scenes.max_per_owner)]
    folders = set(scenes.folder.iterdir())
    scenes.uploads.mkdir()
    damaged = scenes.uploads / "damaged.jpg"
    damaged.write_bytes(photos[0].read_bytes()[:700])  # the header is valid
    assert "damaged" in page.take_files([damaged.name], None, "small", REQUEST)[2]
    assert [scenes.get(scene.id, "v" * 32) for scene in earlier] == earlier
    assert set(scenes.folder.iterdir()) == {*folders, scenes.uploads}


def test_names_that_are_not_on_the_menu_are_rejected_alike(networks, scenes, tmp_path):
    page = Page(networks, scenes, PageOptions())
    (scenes.uploads).mkdir()
    scene = scenes.new("v" * 32, "live")
    for name in (str(tmp_path), "/nowhere", "lch01/StreamVGGT"):
        (told,) = page.start(scene.id, name, "all frames", 5, 3, False, REQUEST)
        assert "expected small, missing" in told
    (told,) = page.start(scene.id, "small", "window:1,999999", 5, 3, False, REQUEST)
    assert "Eviction policy: expected" in told
    (told,) = page.start(scene.id, "small", "all frames", float("nan"), 3, False, REQUEST)
    assert "expected numbers" in told


def test_a_reloaded_page_restores_the_scene_in_its_address_or_the_latest(networks, scenes):
    page = Page(networks, scenes, PageOptions())
    assert page.find_again("", REQUEST)[0] is None
    first, latest = scenes.new("v" * 32, "live"), scenes.new("v" * 32, "live")
    other = scenes.new("w" * 32, "live")
    assert page.find_again(first.id, REQUEST)[0] == first.id
    assert first.id in page.find_again(first.id, REQUEST)[1]
    for asked in ("", other.id, "../x"):
        assert page.find_again(asked, REQUEST)[0] == latest.id
    assert page.find_again(first.id, SimpleNamespace(cookies={}))[0] is None


ODD = [
    b"",
    b"\xff\xfe",
    b"a" * 8000,
    b"\xe9=1",
    b"[" * 500,
    b"-1",
    b"null",
    b"%00%ff",
    b"http://evil.example/",
    b"bytes=9-1,x",
]
HEADERS = ["accept", "accept-encoding", "accept-language", "authorization", "content-type", "cookie", "forwarded"]
HEADERS += ["if-modified-since", "if-none-match", "if-range", "range", "referer", "user-agent", "x-forwarded-for"]
HEADERS += ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "x-forwarded-port", "x-gradio-server"]
HEADERS += ["x-ip-token", "x-direct-url", "x-gradio-user", "sec-fetch-site", "origin", "upgrade", "expect", "te"]


@pytest.mark.parametrize("name", HEADERS)
def test_no_header_breaks_the_page(site, name):
    for value in ODD:
        for path in ("/", "/config", "/viewer/viewer.js", "/scene/x/"):
            connection = http.client.HTTPConnection(urlsplit(site.address).netloc, timeout=60)
            connection.putrequest("GET", path)
            connection.putheader(name, value)
            connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status < 500, (name, value[:20], path)
            assert b"evil.example" not in answer.read(), (name, path)
            connection.close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(serving, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(serving, "ADDRESS_CONNECTIONS", 4)

    async def large(request):
        async def pieces():
            for _ in range(400):
                yield bytes(100_000)

        return StreamingResponse(pieces())

    server = Server(
        Starlette(routes=[Route("/", lambda _: PlainTextResponse("x")), Route("/large", large)]), "127.0.0.1", 0
    )
    server.start()
    yield server
    server.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the server ends the connection; waits for what comes before that."""
    connection.settimeout(30)
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    "begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET"]
)
def test_half_open_connections_are_closed(server, begun):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(begun)
        assert is_closed(connection)


def test_clients_that_do_not_read_are_disconnected(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.settimeout(30)
        assert connection.recv(1)
        deadline = time.monotonic() + 30
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not server.server_state.connections


def test_connections_per_address_are_limited(server):
    open_ones = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    with socket.create_connection(("127.0.0.1", server.port)) as one_more:
        assert is_closed(one_more)
    for connection in open_ones:
        connection.close()


@pytest.mark.parametrize("number", ["-1", "99999999999999999999", "null", '"a"', "true", "1e9"])
def test_a_function_that_the_page_does_not_have_is_rejected(client, number):
    body = f'{{"data": [], "fn_index": {number}, "session_hash": "x"}}'
    assert client.post("/gradio_api/queue/join", content=body).status_code in (400, 422)


def test_an_address_that_cannot_be_listened_on_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="--port: expected a free port"):
            serving.bind("127.0.0.1", taken.getsockname()[1])
    for host in ("nosuch.invalid", "203.0.113.1"):
        with pytest.raises(OSError, match=f"--host: expected an address of this machine, got '{host}'"):
            serving.bind(host, 0)


def test_no_component_takes_files_of_the_server(client, site):
    secret = site.scenes.folder / "secret.txt"
    secret.write_text("secret")
    before = set(site.scenes.uploads.rglob("*"))
    file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    for function in client.get("/config").json()["dependencies"]:
        data = [file] * len(function["inputs"])
        if data:
            body = {"data": data, "fn_index": function["id"], "session_hash": "s"}
            assert client.post(JOIN, json=body).status_code == 400
    assert set(site.scenes.uploads.rglob("*")) == before
