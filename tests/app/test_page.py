"""The page in a real browser: what a visitor sees and does, and that two of them stay apart.

Pictures of it are kept in results/screenshots.
"""

import io
import re
import threading
import time
import zipfile

import cv2
import numpy as np
import pycolmap
import pytest
import trimesh
from browser import ROOT, keep_screenshot
from PIL import Image

# One browser and one page for all of these tests, so they run in one process.
pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.slow]

CLIP = ROOT / "assets" / "clip.mp4"


def viewer_of(page):
    return page.frame_locator("#viewer iframe")


def choose(page, *files) -> None:
    page.locator("#files input[type=file]").set_input_files(files)
    viewer_of(page).locator("#preview img").wait_for()


def set_slider(slider, value: float) -> None:
    """Move a slider as a visitor does, as far as scripts on the page can tell."""
    slider.evaluate("(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value)


def run_through(page, num_frames: int | None = None) -> None:
    """Press Start and wait for the end."""
    if num_frames is not None:
        page.get_by_role("button", name="More settings").click()
        setting = page.locator("#max-frames input[type=number]")
        for _ in range(20):  # on a busy machine Gradio may still be building the form, and put its own number back
            setting.fill(str(num_frames))
            setting.blur()
            page.wait_for_timeout(500)
            if setting.input_value() == str(num_frames):
                break
        assert setting.input_value() == str(num_frames)
    page.locator("#start").click()
    viewer_of(page).get_by_text(re.compile(r"^Done: \d+ frames?")).wait_for()
    wait_until(page, "viewer.feed.hasAll && viewer.cloud.isCalm")


def wait_until(page, condition: str) -> None:
    """Wait for something to be true in the viewer."""
    frame = page.query_selector("#viewer iframe").content_frame()
    frame.wait_for_function(f"() => {condition}")
    frame.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def cloud_picture(page, name: str) -> np.ndarray:
    """What the 3D canvas shows. RGB (H, W, 3)"""
    wait_until(page, "viewer.cloud.isCalm")
    canvas = viewer_of(page).locator("#scene")
    return np.asarray(Image.open(io.BytesIO(keep_screenshot(canvas, name))).convert("RGB")).astype(int)


def num_drawn(picture: np.ndarray) -> int:
    """Pixels that are not the backdrop, which the lower left corner shows."""
    return int((np.abs(picture - picture[-4, 4]).sum(-1) > 12).sum())


def test_from_upload_to_points_sliders_and_downloads(visitor):
    page = visitor()
    addresses = []
    page.on("request", lambda request: addresses.append(request.url))
    choose(page, CLIP)
    keep_screenshot(page, "chosen")
    viewer = viewer_of(page)
    picture = viewer.locator("#first img")
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    viewer.locator("#first circle").wait_for()
    run_through(page, num_frames=6)
    keep_screenshot(page, "finished")

    # The canvas shows points, in the colours of the clip.
    viewer.locator("#cameras").uncheck()
    shown = cloud_picture(page, "cloud")
    assert num_drawn(shown) > 0.02 * shown[..., 0].size
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 100
    assert viewer.locator("#which").inner_text().startswith("6 / 6")
    tracks = page.query_selector("#viewer iframe").content_frame().evaluate("viewer.cloud.frames.map(f => f.tracks)")
    assert [len(track) for track in tracks] == [1] * 6

    # Settings of the view change it, and nobody is asked.
    addresses.clear()
    set_slider(viewer.locator("#percentile"), 90)
    few = cloud_picture(page, "cloud-confident")
    assert num_drawn(few) < 0.9 * num_drawn(shown)
    set_slider(viewer.locator("#percentile"), 0)
    set_slider(viewer.locator("#size"), 1)
    small = num_drawn(cloud_picture(page, "cloud-small"))
    set_slider(viewer.locator("#size"), 16)
    assert num_drawn(cloud_picture(page, "cloud-large")) > small
    viewer.locator("#span").select_option("one")
    wait_until(page, "viewer.cloud.numPoints === 42 * 56")
    set_slider(viewer.locator("#position"), 2)
    wait_until(page, "viewer.cloud.frames.map(f => f.points.visible).join() === 'false,false,true,false,false,false'")
    viewer.locator("#span").select_option("all")
    viewer.locator("#cameras").check()
    viewer.locator("#dropSky").check()
    viewer.locator("#backdrop").select_option("#000000")
    assert (cloud_picture(page, "cloud-black")[-4, 4] == 0).all()
    assert addresses == []

    # Depth under the cursor: the server's own number.
    viewer.locator("#depth").hover()
    reading = viewer.get_by_text(re.compile(r"depth [\d.]+"))
    reading.wait_for()
    x, y, depth = re.search(r"\((\d+), (\d+)\) · depth ([\d.e-]+)", reading.inner_text()).groups()
    frame = page.query_selector("#viewer iframe").content_frame()
    stored = frame.evaluate(
        "async (at) => new Float32Array(await (await fetch('depth/2')).arrayBuffer())[at]", int(y) * 56 + int(x)
    )
    assert float(depth) == pytest.approx(stored, rel=1e-3)

    # Each download opens in its own library.
    def download(kind: str) -> str:
        with page.expect_download() as waiting:
            viewer.locator(f"#downloads [data-kind={kind}]").click()
        path = waiting.value.path().with_name(waiting.value.suggested_filename)
        waiting.value.save_as(path)
        return path

    assert len(trimesh.load(download("glb")).geometry["points"].vertices) > 1000
    assert len(trimesh.load(download("ply")).vertices) > 1000
    colmap = download("colmap")
    with zipfile.ZipFile(colmap) as archive:
        archive.extractall(colmap.parent / "model")
    assert pycolmap.Reconstruction(colmap.parent / "model" / "sparse" / "0").num_images() == 6
    assert len(download("tum").read_text(encoding="utf-8").splitlines()) == 6
    with zipfile.ZipFile(download("depth")) as archive:
        picture = np.frombuffer(archive.read("frame_000000.png"), np.uint8)
    assert cv2.imdecode(picture, cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert cv2.VideoCapture(str(download("video"))).get(cv2.CAP_PROP_FRAME_COUNT) == 6

    # Everything came from this machine.
    assert not [address for address in addresses if not address.startswith(("http://127.0.0.1:", "blob:", "data:"))]


@pytest.fixture
def slow_network(networks, monkeypatch):
    kind = type(networks.get("small"))
    quick = kind.forward

    def forward(self, *arguments, **options):
        time.sleep(0.3)
        return quick(self, *arguments, **options)

    monkeypatch.setattr(kind, "forward", forward)


def test_stop_keeps_what_is_there(visitor, slow_network):
    page = visitor()
    page.get_by_role("button", name="Example: a walk").click()
    viewer = viewer_of(page)
    viewer.locator("#preview img").wait_for()
    page.locator("#start").click()
    viewer.get_by_text(re.compile(r"^Frame [2-9] of")).wait_for()
    keep_screenshot(page, "running")
    viewer.locator("#stop").click()
    viewer.get_by_text(re.compile(r"^Stopped: \d+ frames")).wait_for()
    wait_until(page, "viewer.feed.hasAll")
    kept = page.query_selector("#viewer iframe").content_frame().evaluate("viewer.cloud.frames.length")
    assert 2 <= kept < 20
    assert viewer.locator("#downloads [data-kind=ply]").is_enabled()


def test_a_page_loaded_anew_shows_the_scene_again_and_photos_are_added_to_those_chosen(visitor, photos):
    page = visitor()
    choose(page, photos[0])
    page.locator("#files input[type=file]").set_input_files(photos[1:])
    viewer_of(page).locator("#preview img").wait_for()
    page.locator("#start").click()
    viewer_of(page).get_by_text("Done: 3 frames").wait_for()
    page.reload()
    viewer_of(page).get_by_text("Done: 3 frames").wait_for()
    wait_until(page, "viewer.cloud.frames.length === 3")
    page.locator("#start").click()  # the page knows which scene it is
    wait_until(page, "viewer.feed.status.run === 2 && viewer.feed.hasAll")


def test_two_visitors_stay_apart(visitor, photos):
    first, second = visitor(), visitor()
    choose(first, *photos[:2])
    choose(second, *photos)
    first.locator("#start").click()  # both at once: one of them waits
    second.locator("#start").click()
    for page, count in ((second, 3), (first, 2)):
        viewer_of(page).get_by_text(f"Done: {count} frames").wait_for()
    theirs = first.locator("#viewer iframe").get_attribute("src")
    assert theirs != second.locator("#viewer iframe").get_attribute("src")
    for route in ("", "updates", "preview", "depth/0"):
        assert first.request.get(f"{first.url}{theirs}{route}").status == 200
        assert second.request.get(f"{second.url}{theirs}{route}").status == 404


def test_one_has_the_network_one_waits_and_the_next_is_told_that_the_line_is_full(
    visitor, photos, networks, monkeypatch
):
    kind = type(networks.get("small"))
    unheld, go_on = kind.forward, threading.Event()

    def forward(self, *arguments, **options):
        assert go_on.wait(300)
        return unheld(self, *arguments, **options)

    monkeypatch.setattr(kind, "forward", forward)
    monkeypatch.setattr("streamvggt.app.page.QUEUE_STATUS_INTERVAL", 0.2)
    first, second, third = visitor(), visitor(), visitor()
    for page in (first, second, third):
        choose(page, *photos)
    try:
        first.locator("#start").click()
        viewer_of(first).get_by_text("Loading the weights small and the first frame").wait_for()
        second.locator("#start").click()
        second.get_by_text("One other visitor is before you.").wait_for()
        viewer_of(second).get_by_text("Waiting for the network").wait_for()
        keep_screenshot(second, "waiting")
        third.locator("#start").click()
        third.get_by_text("The line is full: 2 others run the network or wait for it.").wait_for()
        viewer_of(third).get_by_text("Ready. Press Start.").wait_for()
        keep_screenshot(third, "line-full")

        second.close()  # which gives up the place
        ahead = third.get_by_text("One other visitor is before you.")
        while not ahead.is_visible():
            third.locator("#start").click()
            third.wait_for_timeout(300)
    finally:
        go_on.set()
    for page in (first, third):
        viewer_of(page).get_by_text("Done: 3 frames").wait_for()


def test_a_text_file_named_mp4_gives_an_error_on_the_page(visitor, tmp_path):
    page = visitor()
    (tmp_path / "holiday.mp4").write_text("dear diary", encoding="utf-8")
    page.locator("#files input[type=file]").set_input_files(tmp_path / "holiday.mp4")
    page.get_by_text("holiday.mp4 is neither a photo nor a video: its content is text.").wait_for()
    keep_screenshot(page, "error")
    page.locator("#start").click()
    page.get_by_text("Choose photos or a video first").wait_for()


def test_missing_weights_are_told_on_the_page(visitor, photos):
    page = visitor()
    choose(page, photos[0])
    page.locator("#weights input").click()
    page.get_by_role("option", name="missing").click()
    page.locator("#start").click()
    page.locator("#notice").get_by_text("The weights 'missing' cannot be loaded").wait_for()
    viewer_of(page).get_by_text("The weights 'missing' cannot be loaded").wait_for()


def test_the_visitors_camera(visitor):
    page = visitor(permissions=["camera"])
    page.get_by_role("tab", name="Camera").click()
    page.locator("#start-camera").click()
    viewer = viewer_of(page)
    viewer.get_by_text(re.compile(r"^Frame \d+ of 60|^Done")).wait_for()
    wait_until(page, "viewer.cloud.frames.length > 1")
    keep_screenshot(page, "camera")
    if viewer.locator("#stop").is_visible():
        viewer.locator("#stop").click()
    viewer.get_by_text(re.compile(r"^Done: \d+ frames")).wait_for()


def test_a_camera_that_may_not_be_used_is_told(visitor):
    page = visitor()
    page.add_init_script("navigator.mediaDevices.getUserMedia = async () => { throw { name: 'NotAllowedError' }; }")
    page.reload()  # scripts are added to what is loaded from now on
    page.locator("#start").wait_for()
    page.get_by_role("tab", name="Camera").click()
    page.locator("#start-camera").click()
    trouble = viewer_of(page).get_by_text("The camera cannot be used: it was not permitted.")
    trouble.wait_for()
    viewer_of(page).get_by_text("Stopped: 0 frames").wait_for()
    assert trouble.is_visible()


def test_on_a_phone_in_the_dark(visitor):
    page = visitor(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True, is_mobile=True)
    page.get_by_role("button", name="Example: a walk").click()
    viewer_of(page).locator("#preview img").wait_for()
    run_through(page, num_frames=3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    frame = page.query_selector("#viewer iframe").content_frame()
    assert frame.evaluate("document.documentElement.dataset.theme") == "dark"
    assert frame.evaluate("document.body.scrollWidth <= innerWidth && document.body.scrollHeight <= innerHeight + 8")
    keep_screenshot(page, "phone")
    viewer_of(page).locator("#depth").tap()
    viewer_of(page).get_by_text(re.compile(r"Pixel .* depth [\d.]+")).wait_for()


def test_on_a_phone_the_camera_brings_the_viewer_into_sight(visitor):
    page = visitor(viewport={"width": 390, "height": 500}, has_touch=True, is_mobile=True, permissions=["camera"])
    page.get_by_role("tab", name="Camera").tap()
    page.locator("#start-camera").tap()
    page.wait_for_function("() => document.querySelector('#viewer').getBoundingClientRect().top < 100")
    viewer_of(page).get_by_text(re.compile(r"^Frame \d+ of 60|^Done")).wait_for()


def test_gradios_queue_still_rests_as_long_as_the_page_tells_it():
    """By attributes that are not public, which another Gradio may name otherwise."""
    queueing = pytest.importorskip("gradio.queueing")
    queue = queueing.Queue(False, 1, 1.0, None, None)
    assert {"sleep_when_free", "progress_update_sleep_when_free"} <= set(vars(queue))
