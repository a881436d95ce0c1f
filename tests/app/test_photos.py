"""Photos of a scene: thumbnails, adding and removing, for the owner only and not during a run."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("httpx", reason="the server needs `pip install -r requirements_demo.txt`")

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from streamvggt.app.hosts import Hosts
from streamvggt.app.photos import Photos
from streamvggt.app.request_filter import RequestFilter
from streamvggt.app.server import scene_routes
from streamvggt.app.status import RunSettings
from streamvggt.app.uploads import take_uploads
from streamvggt.app.visitors import COOKIE


@pytest.fixture
def taken(photos, tmp_path) -> Photos:
    return Photos(take_uploads(photos, tmp_path / "input").path, max_photos=4)


def test_photos_keep_their_ids_and_added_photos_are_last(taken, photos, tmp_path):
    assert taken.names() == [(0, "IMG_1.jpg"), (1, "IMG_2.png"), (2, "IMG_10.webp")]
    taken.remove(1)
    taken.add(take_uploads(photos[:2], tmp_path / "more").path)
    assert taken.names() == [(0, "IMG_1.jpg"), (2, "IMG_10.webp"), (3, "IMG_1.jpg"), (4, "IMG_2.png")]
    assert len(list(taken.folder.iterdir())) == 4
    assert [frame.name for frame in taken(size=56)] == ["0000_IMG_1", "0002_IMG_10", "0003_IMG_1", "0004_IMG_2"]
    with pytest.raises(ValueError, match="5 photos are too many: at most 4"):
        taken.add(take_uploads(photos[:1], tmp_path / "again").path)


def test_the_last_photo_cannot_be_removed(taken):
    taken.remove(0)
    taken.remove(2)
    with pytest.raises(ValueError, match="One photo must remain"):
        taken.remove(1)
    assert len(taken) == 1


def test_thumbnails_are_small_and_upright(tmp_path):
    image = Image.fromarray(np.repeat(np.uint8([[[255, 0, 0]], [[0, 0, 255]]]), 400, 0).repeat(300, 1))
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    image.save(tmp_path / "turned.jpg", exif=exif)
    taken = Photos(take_uploads([tmp_path / "turned.jpg"], tmp_path / "input").path, 4)
    thumbnail = Image.open(io.BytesIO(taken.thumbnail(0)))
    assert thumbnail.size == (36, 96)
    assert thumbnail.getpixel((18, 10))[2] > 200  # blue is above


@pytest.fixture
def application(scenes):
    home = Route("/", lambda request: PlainTextResponse("home"))
    return RequestFilter(Starlette(routes=[home, *scene_routes(scenes)]), Hosts("testserver"))


def test_only_the_owner_sees_and_removes_photos_and_not_during_a_run(application, scenes, taken, networks):
    owner, stranger = TestClient(application), TestClient(application)
    for client in (owner, stranger):
        client.get("/")
    scene = scenes.new(owner.cookies[COOKIE], "images", taken)
    address = f"/scene/{scene.id}/photo"
    assert owner.get(f"{address}/1").content == taken.thumbnail(1)
    assert stranger.get(f"{address}/1").status_code == stranger.post(f"{address}/1/remove").status_code == 404
    run = scene.run(RunSettings("small"), networks)
    next(run)
    answer = owner.post(f"{address}/1/remove")
    assert (answer.status_code, "Stop the run first" in answer.text) == (400, True)
    run.close()
    assert owner.post(f"{address}/1/remove").json() == [[0, "IMG_1.jpg"], [2, "IMG_10.webp"]]
    assert owner.get(f"{address}/1").status_code == owner.post(f"{address}/1/remove").status_code == 404
    assert [status.num_frames for status in scene.run(RunSettings("small"), networks)][-1] == 2
