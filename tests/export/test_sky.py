"""Sky by gradients: found above a horizon, and nowhere in pictures without one."""

import numpy as np

from streamvggt.export import ExportOptions, ReconstructionResult, ResultWriter, merged_points
from streamvggt.export.sky import sky_mask


def landscape(height: int = 96, width: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A blue gradient over rough hills, and where it is. RGB (H, W, 3), bool (H, W)"""
    random = np.random.default_rng(seed)
    horizon = (0.4 + 0.1 * np.sin(np.linspace(0, 5, width))) * height
    is_sky = np.arange(height)[:, None] < horizon
    image = np.empty((height, width, 3), np.uint8)
    image[:] = np.linspace([120, 160, 235], [190, 210, 245], height)[:, None]
    ground = random.integers(20, 110, (height, width, 1)) * np.array([0.9, 1.0, 0.6])
    image[~is_sky] = ground[~is_sky]
    return image, is_sky


def test_the_sky_above_hills_is_found_to_a_pixel_of_the_small_picture():
    image, is_sky = landscape()
    found = sky_mask(image)
    assert (found == is_sky).mean() > 0.97  # the picture is looked at in half its size
    assert not found[60:].any()


def test_no_sky_in_noise_in_the_dark_or_under_a_warm_ceiling():
    random = np.random.default_rng(0)
    assert not sky_mask(random.integers(0, 256, (60, 80, 3), np.uint8)).any()
    image, _ = landscape()
    assert not sky_mask(image // 4).any()
    assert not sky_mask(image[..., ::-1].copy()).any()


def test_sky_is_dropped_from_exports_when_asked_for(scene, tmp_path):
    """The processed image's content is rows 6…36 of 42; its upper part becomes sky."""
    landscape_, _ = landscape(42, 56)
    frame = scene.frames[0]
    frame.image[:] = frame.image.new_tensor(landscape_).movedim(-1, 0) / 255
    ResultWriter(tmp_path).add(frame, scene.predictions[0])
    result = ReconstructionResult(tmp_path)
    everything = merged_points(result, ExportOptions(conf_percentile=0, drop_edges=False))
    rest = merged_points(result, ExportOptions(conf_percentile=0, drop_edges=False, drop_sky=True))
    assert len(rest) == len(everything) - (sky_mask(result[0].image)[6:36, 8:48]).sum()
    assert rest.pixel[:, 1].min() > everything.pixel[:, 1].min()
