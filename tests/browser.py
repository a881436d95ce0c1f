"""A headless Chromium for tests of pages, and a place for the pictures it takes."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCREENSHOTS = ROOT / "results" / "screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_FLAGS = [
    "--no-sandbox",  # tests may run as root
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--use-fake-device-for-media-stream",  # a camera that shows a test picture
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 60_000
"""Milliseconds for what takes one second on an idle machine."""


def keep_screenshot(target, name: str) -> bytes:
    """A screenshot of a page or a part of it, PNG; kept to be looked at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return target.screenshot(path=SCREENSHOTS / f"{name}.png")
