"""Pictures as the published depth evaluations show them: sizes exactly, pixels to the resampling's rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from streamvggt.evaluation.images import fitted_sizes, load_image

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "metrics.npz")


def test_sizes():
    for original, wanted in zip(GOLDENS["size_in_wh"].tolist(), GOLDENS["size_out_hw"].tolist(), strict=True):
        width, height = fitted_sizes(tuple(original))[1]
        assert [height, width] == wanted[:2]


@pytest.fixture
def picture(tmp_path) -> Path:
    Image.fromarray(GOLDENS["img_tiny_rgb"]).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.parametrize("case", range(3))
def test_pixels(picture, case):
    name = ("img_load_up_nocrop", "img_load_down_nocrop", "img_load_down_crop")[case]
    image = load_image(picture, int(GOLDENS["img_load_size"][case]), crop=name.endswith("_crop"))
    torch.testing.assert_close(image * 2 - 1, torch.from_numpy(GOLDENS[name]), atol=1e-6, rtol=0)


def test_squares_stay_square(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "square.png")
    assert load_image(tmp_path / "square.png", 56).shape == (3, 56, 56)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no image", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.png"):
        load_image(tmp_path / "a.png")
    Image.new("RGB", (900, 10)).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match="900×10: too narrow"):
        load_image(tmp_path / "thin.png", 56)
