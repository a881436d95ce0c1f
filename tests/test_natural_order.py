"""File names are ordered by the numbers written in them."""

import random
from pathlib import Path

import pytest

from streamvggt.natural_order import natural_key, stem


@pytest.mark.parametrize(
    "ordered",
    [
        ["469.98765.jpg", "470.02098.jpg", "470.0211.jpg", "470.05433.jpg", "470.1211.jpg", "470.2.jpg"],
        ["IMG_1.JPG", "img_2.jpg", "IMG_3.JPG", "img_10.jpg"],
        ["clip.9.png", "clip.10.png", "clip.0011.png"],
        ["2024.1.5.png", "2024.1.15.png", "2024.10.2.png"],
        ["1305031102175304000.png", "1305031102175304001.png", "1305031102275304000.png"],
        ["take 1.50 a.jpg", "take 1.5 b.jpg"],
        ["写真９.jpg", "写真10.jpg"],
        ["a2/b10.jpg", "a10/b9.jpg"],
        ["a.jpg", "a_1.jpg"],
        ["9" * 5000 + ".jpg", "1" + "0" * 5000 + ".jpg"],
    ],
)
def test_numbers_are_ordered_by_value(ordered):
    shuffled = random.Random(0).sample(ordered, len(ordered))
    assert sorted(shuffled, key=natural_key) == ordered
    assert sorted(map(Path, shuffled), key=natural_key) == list(map(Path, ordered))


def test_digits_after_a_point_are_no_suffix():
    assert [stem(Path(name)) for name in ("470.2", "470.2.jpg", "a.jp2")] == ["470.2", "470.2", "a"]
