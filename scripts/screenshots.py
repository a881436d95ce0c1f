"""Pictures of the demo page for the README, taken in headless Chromium of a run on the example clip.

    python scripts/screenshots.py --weights tiny --out assets

writes OUT/demo.jpg (laptop, light), OUT/demo-dark.jpg (laptop, dark, from a later view) and OUT/demo-phone.jpg.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Frame, Page, sync_playwright

from streamvggt import load_model
from streamvggt.app.gradio_app import build_page
from streamvggt.app.model_registry import ModelRegistry
from streamvggt.app.page import PageOptions
from streamvggt.app.scenes import Scenes
from streamvggt.app.site import Site
from streamvggt.cli.demo_menu import page_examples, weights_menu

CLIP = Path(__file__).parents[1] / "assets" / "clip.mp4"
CHROMIUM_FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
LAPTOP = {"viewport": {"width": 1366, "height": 768}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
WAIT = 600_000  # milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    _, infos = weights_menu([arguments.weights], False)
    networks = ModelRegistry(
        {arguments.weights: arguments.weights}, lambda name: load_model(name, causal=True), infos=infos
    )
    scenes = Scenes()
    options = PageOptions(examples=page_examples(CLIP.parent))
    blocks = build_page(networks, scenes, options)
    site = Site(blocks, scenes, options)
    address = site.address
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which(arguments.chromium), args=CHROMIUM_FLAGS)
            page, viewer = run(browser, address, **LAPTOP)
            keep(page, arguments.out / "demo.jpg")
            page, viewer = run(browser, address, color_scheme="dark", **LAPTOP)
            viewer.evaluate(FROM_ABOVE)
            calm(viewer)
            keep(page, arguments.out / "demo-dark.jpg")
            page, viewer = run(browser, address, color_scheme="dark", **PHONE)
            page.locator("#viewer").scroll_into_view_if_needed()
            page.evaluate("document.querySelector('#viewer').scrollIntoView()")
            keep(page, arguments.out / "demo-phone.jpg", width=390)
    finally:
        site.close()


# The camera moves up and to the side and looks at the middle of the scene.
FROM_ABOVE = """() => {
  const { cloud } = viewer;
  cloud.camera.position.x += 0.5 * cloud.scale;
  cloud.camera.position.y += 0.7 * cloud.scale;
  cloud.controls.update();
  cloud.draw();
}"""


def run(browser: Browser, address: str, **looks) -> tuple[Page, Frame]:
    """The page after a run on the example: the page and the viewer in it."""
    page = browser.new_context(**looks).new_page()
    page.set_default_timeout(WAIT)
    page.goto(address)
    page.get_by_role("button", name="Room").click()
    frame = page.frame_locator("#viewer iframe")
    frame.get_by_text("Done:").wait_for()
    viewer = page.query_selector("#viewer iframe").content_frame()
    calm(viewer)
    return page, viewer


def calm(viewer: Frame) -> None:
    viewer.wait_for_function("() => viewer.feed.hasAll && viewer.cloud.isCalm")


def keep(page: Page, path: Path, width: int | None = None) -> None:
    """The window as JPEG, shrunk to a width if one is given."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    if width is not None:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=85, optimize=True)


if __name__ == "__main__":
    main()
