"""Which points are merged: all that pass the filter, uniformly, in bounded memory."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pycolmap
import pytest
import torch

from streamvggt.export import EXPORTERS, ExportOptions, ReconstructionResult, ResultWriter, merged_points
from streamvggt.export import points as points_module
from streamvggt.export.points import Reservoir
from streamvggt.export.video import color_ranges, side_by_side
from streamvggt.geometry.pointmap import unproject

ALL = ExportOptions(conf_percentile=0, drop_edges=False)
PER_FRAME = 30 * 40


@pytest.mark.parametrize("source", ["depth", "head"])
def test_points_are_on_the_surface_and_know_their_pixel(scene, result, source):
    cloud = merged_points(result, replace(ALL, point_source=source))
    assert len(cloud) == 5 * PER_FRAME
    assert scene.distance(cloud.points).max() < 1e-5
    for position in range(5):
        own = cloud.frame_index == position
        x, y = cloud.pixel[own].T
        np.testing.assert_array_equal(cloud.colors[own], result[position].image[y, x])
        np.testing.assert_array_equal(cloud.conf[own], result[position].depth_conf[y, x])


def test_world_points_are_the_unprojected_depth(result):
    for _, frame in result.frames("test"):
        expected = unproject(torch.from_numpy(frame.depth).double(), frame.camera).float().numpy()
        np.testing.assert_array_equal(frame.world_points("depth")[0], expected)


def test_padding_is_never_a_point(result):
    x, y = merged_points(result, ALL).pixel.T
    assert (x.min(), x.max(), y.min(), y.max()) == (8, 47, 6, 35)


@pytest.fixture
def masked(scene, tmp_path) -> ReconstructionResult:
    """A result whose images show something in their left half only."""
    valid = torch.zeros(42, 56, dtype=torch.bool)
    valid[:, :28] = True
    scene.frames = [replace(frame, valid=valid) for frame in scene.frames]
    return scene.write(tmp_path / "masked")


@pytest.mark.parametrize("source", ["depth", "head"])
def test_pixels_that_show_nothing_are_never_points(masked, source):
    cloud = merged_points(masked, replace(ALL, point_source=source))
    assert len(cloud) == 5 * PER_FRAME / 2 and cloud.pixel[:, 0].max() == 27
    assert masked[0].valid.dtype == bool and masked[0].valid.sum() == 42 * 28


def test_no_export_shows_what_shows_nothing(masked, tmp_path):
    for kind in ("depth", "colmap"):
        EXPORTERS[kind](masked, tmp_path, ALL)
    with np.load(tmp_path / "depth" / "view_0000.npz") as arrays:
        assert not arrays["depth"][:, 28:].any() and not arrays["conf"][:, 28:].any()
        assert arrays["depth"][6:36, 8:28].all()
    picture = cv2.imread(str(tmp_path / "depth" / "view_0000.png"), cv2.IMREAD_UNCHANGED)
    assert not picture[:, 28:].any()
    strip = side_by_side(masked[0], color_ranges(masked))
    assert not strip[:, 56 + 28 : 112].any() and not strip[:, 112 + 28 :].any()
    model = pycolmap.Reconstruction(tmp_path / "colmap" / "sparse" / "0")
    border = (27.5 - 7.5) * 3.75  # of the left half, in pixels of the original
    assert all(point.xy[0] < border + 3.75 for image in model.images.values() for point in image.points2D)


def test_the_range_of_frames_is_judged_as_results_of_all_lengths_would():
    numbers = (None, *range(-4, 5))
    for start, stop in itertools.product(numbers, numbers):
        possible = [length for length in range(1, 20) if range(length)[start:stop]]
        if not possible:
            with pytest.raises(ValueError, match="no frame of any result"):
                ExportOptions(frames=(start, stop, None))
            continue
        for most in range(1, 20):
            assert ExportOptions(frames=(start, stop, 2)).selects_some(most) == (most >= possible[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_what_is_no_depth_is_no_point(scene, tmp_path, value):
    prediction = scene.predictions[0]
    prediction.depth[0, 0, 10:12, 20:25] = value
    prediction.points[0, 0, 10:12, 20:25] = torch.tensor([0, 0, value])
    ResultWriter(tmp_path).add(scene.frames[0], prediction)
    for source in ("depth", "head"):
        assert len(merged_points(ReconstructionResult(tmp_path), replace(ALL, point_source=source))) == PER_FRAME - 10


def test_the_percentile_drops_its_share_of_the_least_confident(result):
    everything, sure = merged_points(result, ALL), merged_points(result, replace(ALL, conf_percentile=30))
    assert len(sure) / len(everything) == pytest.approx(0.7, abs=0.005)
    dropped = np.sort(everything.conf)[: len(everything) - len(sure)]
    assert dropped.max() < sure.conf.min()


def test_the_percentile_of_a_sample_is_close(result, monkeypatch):
    monkeypatch.setattr(points_module, "MAX_CONF_SAMPLES", 600)
    cloud = merged_points(result, replace(ALL, conf_percentile=30))
    assert len(cloud) / (5 * PER_FRAME) == pytest.approx(0.7, abs=0.08)  # four standard deviations


@pytest.mark.parametrize("filter, value, kept", [("drop_white", 241, 240), ("drop_black", 5, 6)])
def test_background_colors_are_dropped(scene, tmp_path, filter, value, kept):
    scene.frames[0].image[:, 10:12, 20:25] = value / 255
    scene.frames[0].image[:, 20:22, 20:25] = kept / 255
    scene.frames[0].image[0, 13] = value / 255  # one color alone is no background
    ResultWriter(tmp_path).add(scene.frames[0], scene.predictions[0])
    assert len(merged_points(ReconstructionResult(tmp_path), replace(ALL, **{filter: True}))) == PER_FRAME - 10
    assert len(merged_points(ReconstructionResult(tmp_path), ALL)) == PER_FRAME


def test_points_between_objects_are_dropped_unless_asked_for(scene, tmp_path):
    """A depth that is blurred, as networks blur it, puts points between the ball and the wall."""
    depth = scene.predictions[0].depth[..., 0]
    depth.copy_(torch.nn.functional.avg_pool2d(depth, 3, stride=1, padding=1, count_include_pad=False))
    result = scene.write(tmp_path / "blurred", 1)
    kept, all = merged_points(result, replace(ALL, drop_edges=True)), merged_points(result, ALL)
    assert (scene.distance(all.points) > 0.3).sum() > 20
    assert (scene.distance(kept.points) > 0.3).sum() == 0
    assert PER_FRAME * 0.8 < len(kept) < len(all) == PER_FRAME


def test_frames_can_be_chosen(result):
    assert set(merged_points(result, replace(ALL, frames=(1, None, 2))).frame_index) == {1, 3}
    with pytest.raises(ValueError, match="none of the 5 frames"):
        merged_points(result, replace(ALL, frames=(7, 9, None)))


def test_the_budget_is_filled_and_the_seed_decides(result):
    filter = replace(ALL, max_points=500)
    cloud, other = merged_points(result, filter, seed=0), merged_points(result, filter, seed=1)
    merged_points.cache_clear()
    again = merged_points(result, filter, seed=0)
    assert len(cloud) == len(other) == 500
    assert np.array_equal(cloud.points, again.points) and not np.array_equal(cloud.points, other.points)
    assert (np.diff(cloud.frame_index) >= 0).all()
    assert len(cloud.sample(70)) == 70 and len(cloud.sample(700)) == 500


def test_a_setting_out_of_range_is_refused():
    for wrong in ({"point_source": "both"}, {"conf_percentile": 100}, {"max_points": 0}, {"frames": (None, None, -1)}):
        with pytest.raises(ValueError):
            ExportOptions(**wrong)


def test_the_reservoir_is_uniform():
    """Chunks of very unequal size: each row wins equally often, the first as the last."""
    chunks = np.split(np.arange(1000), [1, 10, 500, 505, 990])
    wins = np.zeros(1000)
    for seed in range(400):
        reservoir = Reservoir(50, seed)
        for chunk in chunks:
            reservoir.add(chunk)
        sample = reservoir.sample()
        assert len(np.unique(sample)) == 50 and (np.diff(sample) > 0).all()
        wins[sample] += 1
    expected = 400 * 50 / 1000
    chi_square = ((wins - expected) ** 2 / expected).sum() / 0.95  # without replacement: variance is 1 - 50/1000 of it
    assert abs(chi_square - 999) < 4 * np.sqrt(2 * 999)
    for chunk in chunks:
        assert wins[chunk].sum() == pytest.approx(expected * len(chunk), abs=4 * np.sqrt(expected * len(chunk)) + 1e-9)


def test_the_reservoir_is_bounded():
    reservoir = Reservoir(100)
    for step in range(300):
        reservoir.add(np.full(70, step))
        assert sum(map(len, reservoir._rows)) <= 200
    assert len(reservoir.sample()) == 100


def test_a_short_stream_is_kept_whole():
    reservoir = Reservoir(100)
    reservoir.add(np.arange(40))
    reservoir.add(np.arange(40, 100))
    np.testing.assert_array_equal(reservoir.sample(), np.arange(100))
