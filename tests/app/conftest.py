"""A page with a small network, served to a headless Chromium."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import CHROMIUM, CHROMIUM_FLAGS, PATIENCE, ROOT
from PIL import Image
from small_models import TINY

from streamvggt import StreamVGGT
from streamvggt.app.model_registry import ModelRegistry, WeightsInfo
from streamvggt.app.scenes import Scenes


def network(seed: int = 0) -> StreamVGGT:
    """A network of 60 thousand parameters whose depths differ from pixel to pixel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StreamVGGT(**TINY).eval()


@pytest.fixture(scope="session")
def networks() -> ModelRegistry:
    def load(name: str) -> StreamVGGT:
        if name == "nowhere":
            raise FileNotFoundError("no weights at 'nowhere'")
        return network()

    infos = {
        "small": WeightsInfo("60 thousand parameters", has_tracker=True),
        "missing": WeightsInfo(limits="It reconstructs nothing.", has_tracker=False),
    }
    return ModelRegistry({"small": "small", "missing": "nowhere"}, load, infos=infos)


@pytest.fixture
def scenes() -> Iterator[Scenes]:
    scenes = Scenes()
    yield scenes
    scenes.close()


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    """Three photos of 80×60 pixels, as JPEG, PNG and WebP."""
    random = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("IMG_1.jpg", "IMG_2.png", "IMG_10.webp")]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (60, 80, 3), np.uint8)).save(path)
    return paths


@pytest.fixture(scope="session")
def site(networks):
    """The page, with the clip of assets/ as its example."""
    pytest.importorskip("gradio", reason="the page needs `pip install -r requirements_demo.txt`")
    from streamvggt.app.examples import Example
    from streamvggt.app.gradio_app import build_page
    from streamvggt.app.page import PageOptions
    from streamvggt.app.site import Site

    scenes = Scenes()
    examples = [
        Example("Room", ROOT / "assets" / "clip.mp4"),
        Example("Photos", ROOT / "assets" / "examples" / "photos", memory="all frames", max_frames=3),
    ]
    options = PageOptions(max_frames=60, queue_size=1, at_once=1, examples=examples)
    site = Site(build_page(networks, scenes, options), scenes, options)
    yield site
    site.close()


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="tests in a browser need `pip install -r requirements_demo.txt`"
    )
    if CHROMIUM is None:
        pytest.skip("tests in a browser need Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser, site):
    """A function that opens the page as a new visitor; what the page says in its console as an error is one here.

    `address`: of the page. `script`: runs in the page before its own.
    """
    contexts, troubles = [], []

    def open_page(address=site.address, script="", **options):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 680}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.add_init_script(script)
        page.goto(address)
        page.locator("#start").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles
