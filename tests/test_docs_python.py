"""The python blocks of docs/ run, page by page from top to bottom, and compute what the pages say."""

import re
from pathlib import Path

import torch
from launching import ROOT
from small_models import SHALLOW, tiny
from test_docs import PAGES

from streamvggt import StreamSession
from streamvggt.data.view import Batch

TESTED_ELSEWHERE = {"README.md": "test_commands.py", "data.md": "datasets/test_docs.py"}


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(name: str, **known) -> dict:
    """Run the blocks of a page in one namespace. known: the names that the page leaves to the reader."""
    namespace = {"__name__": "page", **known}
    for block in blocks(ROOT / "docs" / name):
        exec(compile(block, name, "exec"), namespace)
    return namespace


def test_no_page_is_left_out():
    pages = {page.name for page in PAGES if blocks(page)}
    assert pages == {"api.md", "streaming.md", "training.md", "webcam-and-robots.md", *TESTED_ELSEWHERE}
    for name, test in TESTED_ELSEWHERE.items():
        assert name in (ROOT / "tests" / test).read_text(encoding="utf-8")


def test_api(monkeypatch):
    monkeypatch.chdir(ROOT)
    made = run("api.md")
    assert made["session"].num_frames == 48 and made["prediction"].depth.isfinite().all()


def test_streaming():
    torch.manual_seed(0)
    model = tiny(**SHALLOW, dtype=torch.float32, heads=("camera", "depth"))
    images = torch.rand(1, 2, 3, 28, 42)
    made = run("streaming.md", model=model, images=images, frame=images[0, 0], other=images[0, 1])
    assert made["memory"].num_frames == 2
    alone = StreamSession(model).push(images[0, 0])
    torch.testing.assert_close(made["prediction"].depth, alone.depth)
    session = StreamSession(model, policy=made["EvenFrames"](3))
    for _ in range(10):
        session.push(images[0, 0])
    assert session.memory.kept_frames == [0, 6, 8]


def test_training():
    batches = run("training.md")["WallBatches"]()
    one, again, other = batches[3], batches[3], batches[4]
    assert (
        isinstance(one, Batch) and torch.equal(one.images, again.images) and not torch.equal(one.images, other.images)
    )


def test_webcam():
    on_image = run("webcam-and-robots.md")["on_image"]
    image = torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8).numpy()
    pose, depth = on_image(image)
    torch.testing.assert_close(pose[:3, 3], torch.zeros(3), atol=0.2, rtol=0)
    assert depth.shape == (80, 112) and (depth > 0).all()
