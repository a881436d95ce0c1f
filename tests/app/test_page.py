"""The page in a real browser: what a visitor sees and does, and that two of them stay apart.

Pictures of it are kept in results/screenshots.
"""

import io
import re
import threading
import time
import zipfile

import av
import cv2
import numpy as np
import pycolmap
import pytest
import trimesh
from browser import ROOT, keep_screenshot
from PIL import Image

pytestmark = pytest.mark.slow

CLIP = ROOT / "assets" / "clip.mp4"


NUM_POINTS = "viewer.cloud.frames.reduce((sum, { num }) => sum + num, 0)"
"""Number of points drawn in the viewer."""


def viewer_of(page):
    return page.frame_locator("#viewer iframe")


def choose(page, *files) -> None:
    page.locator("#files input[type=file]").set_input_files(files)
    viewer_of(page).locator("#first img").wait_for()


def evaluate(page, expression: str):
    """A value in the viewer."""
    return page.query_selector("#viewer iframe").content_frame().evaluate(expression)


def set_slider(slider, value: float) -> None:
    """Move a slider as a visitor does, as far as scripts on the page can tell."""
    slider.evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )


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


def test_an_upload_is_reconstructed_filtered_and_downloaded(visitor):
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

    # The canvas shows points, in the colors of the clip.
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
    set_slider(viewer.locator("#size"), 0.5)
    small = num_drawn(cloud_picture(page, "cloud-small"))
    set_slider(viewer.locator("#size"), 6)
    assert num_drawn(cloud_picture(page, "cloud-large")) > small
    viewer.locator("#span").select_option("one")
    viewer.locator("#dropEdges").uncheck()
    wait_until(page, f"{NUM_POINTS} === 42 * 56")
    set_slider(viewer.locator("#position"), 2)
    wait_until(page, "viewer.cloud.frames.map(f => f.points.visible).join() === 'false,false,true,false,false,false'")
    viewer.locator("#span").select_option("all")
    viewer.locator("#cameras").check()
    viewer.locator("#dropSky").check()
    viewer.locator("#backdrop").select_option("#000000")
    assert (cloud_picture(page, "cloud-black")[-4, 4] == 0).all()
    assert [address for address in addresses if not address.startswith("blob:")] == []  # the images are in the page

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
    quick = kind.step

    def step(self, *arguments, **options):
        time.sleep(0.3)
        return quick(self, *arguments, **options)

    monkeypatch.setattr(kind, "step", step)


def test_stop_keeps_the_finished_frames(visitor, slow_network):
    page = visitor()
    page.get_by_role("button", name="Room").click()
    viewer = viewer_of(page)
    viewer.get_by_text(re.compile(r"^Frame \d+ of 48")).wait_for()
    keep_screenshot(page, "running")
    viewer.locator("#stop").click()
    viewer.get_by_text(re.compile(r"^Stopped: \d+ frames?")).wait_for()
    wait_until(page, "viewer.feed.hasAll")
    kept = page.query_selector("#viewer iframe").content_frame().evaluate("viewer.cloud.frames.length")
    assert 1 <= kept < 48
    assert viewer.locator("#downloads [data-kind=ply]").is_enabled()


def test_photos_can_be_added_and_removed_and_a_reload_restores_the_scene_in_the_address(visitor, photos):
    page = visitor()
    choose(page, *photos[:2])
    page.locator("#files input[type=file]").set_input_files(photos[2])
    strip = viewer_of(page).locator("#photos img")
    wait_until(page, "document.querySelectorAll('#photos li').length === 3")
    assert [image.get_attribute("alt") for image in strip.all()] == ["IMG_1.jpg", "IMG_2.png", "IMG_10.webp"]
    wait_until(page, "[...document.querySelectorAll('#photos img')].every((image) => image.naturalWidth > 0)")
    keep_screenshot(page, "photos")
    viewer_of(page).get_by_title("Remove IMG_2.png").click()
    wait_until(page, "document.querySelectorAll('#photos li').length === 2")
    page.locator("#start").click()
    viewer_of(page).get_by_text("Done: 2 frames").wait_for()
    address, scene = page.url, page.locator("#viewer iframe").get_attribute("src")
    assert scene.split("/")[1] in address
    choose(page, CLIP)  # a later scene of the same visitor
    assert page.url != address
    page.goto("about:blank")
    page.goto(address)
    viewer_of(page).get_by_text("Done: 2 frames").wait_for()
    wait_until(page, "viewer.cloud.frames.length === 2")
    page.locator("#start").click()  # the page knows the scene
    wait_until(page, "viewer.feed.status.run === 2 && viewer.feed.hasAll")

    other = visitor(address=address)
    other.get_by_text("Choose photos or a video, or click an example.").wait_for()
    assert other.locator("#viewer iframe").count() == 0


def test_a_failed_second_start_keeps_the_finished_scene(visitor, photos, tmp_path):
    page = visitor(script="navigator.mediaDevices.getUserMedia = async () => { throw { name: 'NotAllowedError' }; }")
    page.locator("#start").click()
    page.locator("#notice").get_by_text("Failed: Choose photos or a video first").wait_for()
    choose(page, *photos[:2])
    page.locator("#start").click()
    done = viewer_of(page).get_by_text("Done: 2 frames")
    done.wait_for()
    (tmp_path / "holiday.mp4").write_text("dear diary", encoding="utf-8")
    page.locator("#files input[type=file]").set_input_files(tmp_path / "holiday.mp4")
    page.locator("#notice").get_by_text(
        "Failed: holiday.mp4 is neither a photo nor a video: its content is text."
    ).wait_for()
    assert done.is_visible()
    page.get_by_role("tab", name="Camera").click()
    page.locator("#start-camera").click()
    page.locator("#camera-notice").get_by_text("Failed: Camera access was not permitted.").wait_for()  # under its tab
    assert not page.locator("#notice").is_visible()
    assert done.is_visible()
    page.get_by_role("tab", name="Photos or video").click()
    select_weights(page, "missing")
    page.locator("#start").click()
    page.locator("#notice").get_by_text("Failed: The weights 'missing' cannot be loaded").wait_for()
    viewer_of(page).get_by_text("Failed. The viewer shows the finished 2 frames.").wait_for()
    wait_until(page, "viewer.feed.hasAll && viewer.cloud.frames.length === 2")
    keep_screenshot(page, "failed-second-start")


def select_weights(page, label: str) -> None:
    page.locator("#weights input").click()
    page.get_by_role("option", name=label).click()


def test_tracking_is_offered_where_the_weights_have_a_tracker(visitor, photos):
    page = visitor()
    choose(page, photos[0])
    page.locator("#about").get_by_text("The weights have a tracker").wait_for()
    first = viewer_of(page).locator("#first")
    first.click()
    viewer_of(page).locator("#first circle").wait_for()
    select_weights(page, "missing")
    viewer_of(page).get_by_text("Press Start. The selected weights have no tracker.").wait_for()
    page.locator("#about").get_by_text("It reconstructs nothing. The weights have no tracker.").wait_for()
    assert viewer_of(page).locator("#first circle").count() == 0
    first.click(position={"x": 5, "y": 5})
    assert len(evaluate(page, "viewer.feed.status.queries")) <= 1
    page.locator("#files input[type=file]").set_input_files(photos[1])
    page.locator("#notice").get_by_text("It reconstructs nothing.").wait_for()  # limits, where own photos are given


def test_an_example_runs_with_its_settings_and_has_all_view_modes(visitor):
    page = visitor(viewport={"width": 900, "height": 640})
    example = page.get_by_role("button", name="Photos", exact=True)
    shown = example.evaluate("(button) => getComputedStyle(button, '::before').backgroundImage")
    assert shown.startswith('url("data:image/jpeg;base64,')
    example.click()
    viewer = viewer_of(page)
    viewer.get_by_text("Done: 3 frames").wait_for()
    page.get_by_role("button", name="More settings").click()
    assert page.locator("#memory input").input_value() == "all frames"
    assert page.locator("#max-frames input[type=number]").input_value() == "3"

    viewer.locator("#cameras").uncheck()
    set_slider(viewer.locator("#percentile"), 0)
    pictures = {"points": cloud_picture(page, "view-points")}
    for mode in ("mesh", "normals"):
        viewer.locator("#surface").select_option(mode)
        wait_until(page, "viewer.cloud.frames.every(({ mesh }) => mesh?.visible)")
        pictures[mode] = cloud_picture(page, f"view-{mode}")
    for one, other in (("points", "mesh"), ("mesh", "normals")):
        assert (np.abs(pictures[one] - pictures[other]).sum(-1) > 12).mean() > 0.01

    # Meshes follow the filters.
    num_corners = "viewer.cloud.frames.reduce((sum, { mesh }) => sum + mesh.geometry.drawRange.count, 0)"
    assert not viewer.locator("#max-points").is_visible()  # it limits points only
    evaluate(page, "viewer.cloud.frames.forEach(({ mesh }) => mesh.marks.fill(2, 0, 560))")  # edges in ten rows
    viewer.locator("#dropEdges").uncheck()
    counts = [evaluate(page, num_corners)]
    viewer.locator("#dropEdges").check()
    counts.append(evaluate(page, num_corners))
    set_slider(viewer.locator("#percentile"), 80)
    counts.append(evaluate(page, num_corners))
    assert counts[0] > counts[1] > counts[2] > 0
    set_slider(viewer.locator("#percentile"), 0)

    viewer.locator("#surface").select_option("points")
    most = evaluate(page, NUM_POINTS)
    evaluate(page, "document.querySelector('#max-points').min = 1")  # the scene has fewer points than the least value
    set_slider(viewer.locator("#max-points"), 1)
    wait_until(page, f"{NUM_POINTS} <= 1000")
    assert most > 1000
    viewer.get_by_role("button", name="Top").click()
    above = "viewer.cloud.camera.position.clone().sub(viewer.cloud.controls.target).normalize().y"
    wait_until(page, f"{above} > 0.99")
    keep_screenshot(page, "view-top")
    viewer.get_by_role("button", name="Orbit").click()
    wait_until(page, "viewer.cloud.controls.getAzimuthalAngle() !== 0")
    viewer.get_by_role("button", name="First camera").click()
    wait_until(page, f"{above} < 0.9")

    def download(kind: str) -> bytes:
        with page.expect_download() as waiting:
            viewer.locator(f"#downloads [data-kind={kind}]").click()
        return waiting.value.path().read_bytes()

    evaluate(page, WATCH_VIEW)
    picture = np.asarray(Image.open(io.BytesIO(download("screenshot"))).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    evaluate(page, "viewer.cloud.fullTime = 1e6")  # as on a machine that can draw few points at once
    with av.open(io.BytesIO(download("fly-through"))) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(frames) > 1
    assert np.abs(frames[0] - frames[-1]).mean() > 0.5  # the view moves
    assert set(evaluate(page, "fractions")) == {1}  # of the points, in every image
    assert evaluate(page, "sizes.size") == 1  # downloads do not move the view


WATCH_VIEW = """(() => {
  const { cloud } = viewer, { render } = cloud;
  window.fractions = [];
  const button = document.querySelector("[data-kind=fly-through]");
  cloud.render = (fraction) => {
    if (button.disabled) fractions.push(fraction);
    render.call(cloud, fraction);
  };
  window.sizes = new Set();
  new ResizeObserver(() => sizes.add(cloud.canvas.clientHeight)).observe(cloud.canvas);
})()"""
"""Notes the fraction of the points in each image of the fly-through, and the heights of the canvas."""


def test_two_users_cannot_see_each_others_scenes(visitor, photos):
    first, second = visitor(), visitor()
    choose(first, *photos[:2])
    choose(second, *photos)
    first.locator("#start").click()  # both at once: one of them waits
    second.locator("#start").click()
    for page, count in ((second, 3), (first, 2)):
        viewer_of(page).get_by_text(f"Done: {count} frames").wait_for()
    theirs = first.locator("#viewer iframe").get_attribute("src")
    assert theirs != second.locator("#viewer iframe").get_attribute("src")
    site = first.url.split("#")[0]
    for route in ("", "updates", "preview", "depth/0"):
        assert first.request.get(f"{site}{theirs}{route}").status == 200
        assert second.request.get(f"{site}{theirs}{route}").status == 404


def test_one_user_runs_one_waits_and_the_next_is_rejected(visitor, photos, networks, monkeypatch):
    kind = type(networks.get("small"))
    unheld, go_on = kind.step, threading.Event()

    def step(self, *arguments, **options):
        assert go_on.wait(300)
        return unheld(self, *arguments, **options)

    monkeypatch.setattr(kind, "step", step)
    monkeypatch.setattr("streamvggt.app.page.QUEUE_STATUS_INTERVAL", 0.2)
    first, second, third = visitor(), visitor(), visitor()
    for page in (first, second, third):
        choose(page, *photos)
    try:
        first.locator("#start").click()
        viewer_of(first).get_by_text("Loading the weights small and the first frame").wait_for()
        second.locator("#start").click()
        second.get_by_text("Position in queue: 1.").wait_for()
        viewer_of(second).get_by_text("Waiting for the model").wait_for()
        keep_screenshot(second, "waiting")
        third.locator("#start").click()
        third.get_by_text("Failed: The queue is full: 2 users run the model or wait.").wait_for()
        viewer_of(third).get_by_text("Ready. Press Start.").wait_for()
        keep_screenshot(third, "line-full")

        second.close()  # which gives up the place
        ahead = third.get_by_text("Position in queue: 1.")
        while not ahead.is_visible():
            third.locator("#start").click()
            third.wait_for_timeout(300)
    finally:
        go_on.set()
    for page in (first, third):
        viewer_of(page).get_by_text("Done: 3 frames").wait_for()


def test_the_page_fits_a_phone_in_dark_mode(visitor):
    page = visitor(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True, is_mobile=True)
    page.get_by_role("button", name="Photos", exact=True).click()
    page.wait_for_function("() => document.querySelector('#viewer').getBoundingClientRect().top < 100")
    viewer_of(page).get_by_text("Done: 3 frames").wait_for()
    wait_until(page, "viewer.feed.hasAll && viewer.cloud.isCalm")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    frame = page.query_selector("#viewer iframe").content_frame()
    assert frame.evaluate("document.documentElement.dataset.theme") == "dark"
    assert frame.evaluate("document.body.scrollWidth <= innerWidth && document.body.scrollHeight <= innerHeight + 8")
    keep_screenshot(page, "phone")
    viewer_of(page).locator("#depth").tap()
    viewer_of(page).get_by_text(re.compile(r"Pixel .* depth [\d.]+")).wait_for()
    set_slider(viewer_of(page).locator("#percentile"), 0)
    middle = frame.evaluate("[scene.clientWidth / 2, scene.clientHeight / 2]")
    viewer_of(page).locator("#scene").tap(position={"x": middle[0], "y": middle[1]})
    viewer_of(page).get_by_text(re.compile(r"\) · depth [\d.]+ in frame \d")).wait_for()
    for place, name in ((page, "page"), (frame, "viewer")):
        small = place.evaluate(SMALL_CONTROLS)
        assert small == [], name


SMALL_CONTROLS = """() => [...document.querySelectorAll("button, input, select, textarea")]
  .filter((control) => control.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
  .map((control) => [control.outerHTML.slice(0, 120), control.getBoundingClientRect()])
  .filter(([, { width, height }]) => width > 0 && (width < 23.5 || height < 23.5))
  .map(([html, { width, height }]) => `${html} ${width}×${height}`)"""


def test_starting_the_camera_on_a_phone_scrolls_to_the_viewer(visitor):
    page = visitor(viewport={"width": 390, "height": 500}, has_touch=True, is_mobile=True, permissions=["camera"])
    page.get_by_role("tab", name="Camera").tap()
    page.locator("#start-camera").tap()
    page.wait_for_function("() => document.querySelector('#viewer').getBoundingClientRect().top < 100")
    viewer = viewer_of(page)
    viewer.get_by_text(re.compile(r"^Frame \d+ of 60|^Done")).wait_for()
    wait_until(page, "viewer.cloud.frames.length > 1")
    keep_screenshot(page, "camera")
    if viewer.locator("#stop").is_visible():
        viewer.locator("#stop").tap()
    viewer.get_by_text(re.compile(r"^Done: \d+ frames")).wait_for()


def test_the_polling_interval_of_gradios_queue_is_that_of_the_page():
    """By attributes that are not public, which another Gradio may name otherwise."""
    queueing = pytest.importorskip("gradio.queueing")
    queue = queueing.Queue(False, 1, 1.0, None, None)
    assert {"sleep_when_free", "progress_update_sleep_when_free"} <= set(vars(queue))
