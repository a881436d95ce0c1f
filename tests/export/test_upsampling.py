"""Depth at the size of the original: on the surfaces, cut where the image is, and aligned with its pixels."""

import cv2
import numpy as np
import pytest

from streamvggt.export import EXPORTERS, ExportOptions
from streamvggt.export.upsampling import upsample_depth


def test_the_depth_of_the_original_is_that_of_its_own_camera(scene, result, tmp_path):
    """Unprojected by the original intrinsics, it lies on ball and wall, and covers the original."""
    folder = EXPORTERS["depth"](result, tmp_path, ExportOptions(full_resolution=True))
    with np.load(folder / "view_0020.npz") as arrays:
        depth, K, pose = arrays["depth"], arrays["intrinsics"], arrays["cam_from_world"]
        assert depth.shape == arrays["conf"].shape == (120, 150) and (arrays["conf"] >= 1).all()
    assert (depth > 0).all()
    y, x = np.indices(depth.shape)
    points = np.stack([x, y, np.ones(depth.shape)], -1) @ np.linalg.inv(K).T * depth[..., None]
    world = (points - pose[:, 3]) @ pose[:, :3]
    assert np.percentile(scene.distance(world), 99) < 0.05
    assert cv2.imread(str(folder / "view_0020.png"), cv2.IMREAD_UNCHANGED).shape == (120, 150)


@pytest.fixture
def step():
    """A dark object before a light wall, whose border is not between two pixels of the depth map."""
    original = np.full((60, 90, 3), 220, np.uint8)
    original[:, :47] = 30
    image = cv2.resize(original, (15, 10), interpolation=cv2.INTER_AREA)
    depth = np.where(np.arange(15) < 8, 1.0, 3.0)[None].repeat(10, 0).astype(np.float32)
    matrix = np.array([[6, 0, 2.5], [0, 6, 2.5], [0, 0, 1]])
    return depth, image, original, matrix


def test_the_border_of_the_image_is_that_of_the_depth(step):
    depth, image, original, matrix = step
    full = upsample_depth(depth, np.ones(depth.shape, bool), image, original, matrix)
    assert set(np.unique(full.round(4))) == {1.0, 3.0}  # nothing between the surfaces
    np.testing.assert_array_equal(full[:, :47].round(4), 1)
    np.testing.assert_array_equal(full[:, 49:].round(4), 3)


def test_what_is_unknown_stays_unknown_and_spoils_no_neighbor(step):
    depth, image, original, matrix = step
    usable = np.ones(depth.shape, bool)
    usable[:, :3] = False
    depth[:, :3] = np.nan
    matrix[0, 2] += 12  # two pixels of the original are left of the depth map
    full = upsample_depth(depth, usable, image, original, matrix)
    assert not full[:, : 12 + 18].any() and np.isfinite(full).all() and (full[:, 30:] > 0).all()
