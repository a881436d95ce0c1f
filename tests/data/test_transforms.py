"""Crops, sizes and colors: cameras follow exactly, and everything of a view goes the same way."""

import colorsys

import numpy as np
import pytest
import torch

from streamvggt.data.decode import DataError
from streamvggt.data.transforms import (
    ColorJitter,
    center_crop,
    crop,
    crop_and_resize,
    image_array,
    nearest_indices,
    resize,
)
from streamvggt.data.view import View
from streamvggt.geometry.pointmap import project

SHAPES = [((80, 60), (56, 42)), ((80, 60), (42, 56)), ((64, 48), (112, 84)), ((99, 71), (70, 56)), ((60, 80), (56, 42))]


def blob(width: int, height: int, cx: float, cy: float, sigma: float = 3.0) -> tuple[View, torch.Tensor]:
    """A Gaussian spot where a 3D point is seen, and the point."""
    intrinsics = torch.tensor([[70.0, 0, cx], [0, 68, cy], [0, 0, 1]])
    view = View(
        torch.zeros(3, height, width),
        torch.full((height, width), 2.0),
        torch.ones(height, width, dtype=torch.bool),
        torch.zeros(height, width, dtype=torch.bool),
        intrinsics,
        torch.eye(4)[:3],
    )
    point = torch.tensor([[0.13, -0.09, 2.0]])
    (x, y), _ = (value.squeeze(0) for value in project(point, view.cameras))
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    view.image[:] = torch.exp(-((u - x) ** 2 + (v - y) ** 2) / 2 / sigma**2)
    return view, point


def center_of_mass(image: torch.Tensor) -> torch.Tensor:
    weight = image.double().mean(0).clamp(min=0.02) - 0.02
    v, u = torch.meshgrid(torch.arange(weight.shape[0]), torch.arange(weight.shape[1]), indexing="ij")
    return torch.stack([(weight * u).sum(), (weight * v).sum()]) / weight.sum()


@pytest.mark.parametrize(("before", "after"), SHAPES)
@pytest.mark.parametrize("extra", [0, 11])
def test_a_point_stays_on_its_pixel(before, after, extra):
    view, point = blob(*before, before[0] / 2 - 1.3, before[1] / 2 + 2.2)
    fitted = crop_and_resize(view, after, extra)
    assert fitted.image.shape == (3, after[1], after[0]) and fitted.depth.shape == (after[1], after[0])
    expected, _ = project(point, fitted.cameras)
    assert (center_of_mass(fitted.image) - expected[0]).abs().max() < 0.05


def test_crops_lose_pixels_and_nothing_else():
    view, _ = blob(20, 16, 10.0, 8.0)
    cut = crop(view, 3, 2, (12, 9))
    assert torch.equal(cut.image, view.image[:, 2:11, 3:15])
    assert cut.intrinsics[0, 2] == 7 and cut.intrinsics[1, 2] == 6
    assert torch.equal(center_crop(view, (20, 16)).image, view.image)


def test_depth_and_masks_take_the_nearest_pixel_together():
    view, _ = blob(20, 16, 10.0, 8.0)
    view.depth[:] = torch.arange(320.0).view(16, 20) + 1
    view.valid[:] = view.depth % 2 == 0
    small = resize(view, (10, 7))
    assert torch.equal(small.valid, small.depth % 2 == 0)
    assert set(small.depth.flatten().tolist()) <= set(view.depth.flatten().tolist())
    assert nearest_indices(4, 2).tolist() == [1, 3] and nearest_indices(2, 4).tolist() == [0, 0, 1, 1]


def test_a_principal_point_near_the_border_is_rejected():
    view, _ = blob(80, 60, 70.0, 30.0)
    with pytest.raises(DataError, match=r"principal point \(70\.0, 30\.0\) is too near to a border of 80×60"):
        crop_and_resize(view, (56, 42))


def test_the_principal_point_becomes_the_middle():
    view, _ = blob(80, 60, 33.4, 35.2)
    fitted = crop_and_resize(view, (42, 28))
    assert (fitted.intrinsics[:2, 2] - torch.tensor([21.0, 14.0])).abs().max() < 1.5


def test_jitter_does_what_its_words_mean():
    image = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    still = ColorJitter(1, 1, 1, 0)
    torch.testing.assert_close(still(image), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(ColorJitter(0.5, 1, 1, 0)(image), image / 2, atol=1e-5, rtol=0)
    gray = ColorJitter(1, 1, 0, 0)(image)
    weights = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(gray, (image * weights[:, None, None]).sum(0).expand(3, -1, -1), atol=1e-5, rtol=0)
    flat = ColorJitter(1, 0, 1, 0)(image)
    torch.testing.assert_close(flat, gray.mean().expand_as(flat), atol=1e-5, rtol=0)
    red = torch.zeros(3, 2, 2)
    red[0] = 1
    turned = ColorJitter(1, 1, 1, 1 / 12)(red)[:, 0, 0]
    torch.testing.assert_close(turned, torch.tensor(colorsys.hsv_to_rgb(1 / 12, 1, 1)), atol=1e-3, rtol=0)


def test_jitter_is_drawn_within_its_bounds_and_applied_alike():
    random = np.random.default_rng(0)
    drawn = [ColorJitter.draw(random) for _ in range(500)]
    for name, low, high in (
        ("brightness", 0.5, 1.5),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -0.1, 0.1),
    ):
        values = np.array([getattr(jitter, name) for jitter in drawn])
        assert low <= values.min() < low + 0.05 * (high - low) and high >= values.max() > high - 0.05 * (high - low)
    assert len({jitter.order for jitter in drawn}) == 24
    image = torch.rand(3, 5, 7)
    assert torch.equal(drawn[0](image), drawn[0](image.clone()))


def test_bytes_survive_the_way_through_floats():
    image = torch.arange(256).float().div(255).expand(3, 1, 256)
    assert np.array_equal(image_array(image)[0, :, 0], np.arange(256))
