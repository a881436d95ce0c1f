"""What the browser gets of a frame: the file's own numbers, fewer of them."""

import json
import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from streamvggt.app import packet as packet_module
from streamvggt.app.packet import (
    PixelMark,
    Track,
    pack,
    pixel_marks,
    sample_pixels,
    truncate,
    unpack_arrays,
    updated_ranges,
)
from streamvggt.export import ExportOptions
from streamvggt.export.result_frame import ResultFrame

H, W = 42, 56


def frame(seed: int = 0) -> ResultFrame:
    random = np.random.default_rng(seed)
    depth = random.uniform(1, 3, (H, W)).astype(np.float32)
    depth[0, 0], depth[0, 1] = np.nan, -1
    return ResultFrame(
        index=0,
        name="a",
        cam_from_world=np.eye(3, 4),
        intrinsics=np.array([[50.0, 0, 28], [0, 50.0, 21], [0, 0, 1]]),
        original_size=(H, W),
        original_from_image=np.eye(3),
        content=(2, 0, H, W),
        image=random.integers(0, 256, (H, W, 3), np.uint8),
        depth=depth,
        depth_conf=random.uniform(1, 5, (H, W)).astype(np.float32),
        points=random.uniform(1, 3, (H, W, 3)).astype(np.float32),
        points_conf=np.ones((H, W), np.float32),
    )


KINDS = {"points": "<f4", "colors": "u1", "marks": "u1", "conf": "<f4", "picture": "u1"}


def unpack(packet: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """As `updates.js` does it."""
    (length,) = struct.unpack_from("<I", packet)
    header = json.loads(packet[4 : 4 + length])
    assert length % 4 == 0
    assert all(start % 4 == 0 for start, _ in header["arrays"].values())
    header, arrays = unpack_arrays(packet)
    return header, {name: array.view(KINDS[name]) for name, array in arrays.items()}


@pytest.mark.parametrize("source", ["depth", "head"])
def test_a_packet_contains_points_colors_and_confidences_of_its_pixels(source):
    stored = frame()
    header, arrays = unpack(pack(stored, 3, source, updated_ranges(None, stored), []))
    y, x = np.divmod(sample_pixels(stored, 3, source), W)
    world, conf = stored.world_points(source)
    assert header["num_points"] == len(x) == (H - 2) * W  # no padding; what is no number lies there
    np.testing.assert_array_equal(arrays["points"].reshape(-1, 3), world[y, x].astype(np.float32))
    np.testing.assert_array_equal(arrays["colors"].reshape(-1, 3), stored.image[y, x])
    np.testing.assert_array_equal(arrays["marks"], pixel_marks(stored, source)[y, x])
    np.testing.assert_array_equal(arrays["conf"], conf[y, x].astype(np.float32))
    picture = cv2.imdecode(arrays["picture"], cv2.IMREAD_COLOR)
    assert picture.shape == (H, 3 * W, 3)


@pytest.mark.parametrize(
    ("mark", "option"),
    [(PixelMark.EDGE, "drop_edges"), (PixelMark.WHITE, "drop_white"), (PixelMark.BLACK, "drop_black")],
)
def test_marks_equal_the_pixels_that_exports_drop(mark, option):
    stored = frame()
    stored.image[10:14], stored.image[20:24] = 255, 0
    keep_all = ExportOptions(drop_edges=False)
    dropped = keep_all.candidate_mask(stored) & ~replace(keep_all, **{option: True}).candidate_mask(stored)
    marks = pixel_marks(stored, "depth")
    np.testing.assert_array_equal((marks & mark > 0) & stored.valid_mask("depth"), dropped)
    assert dropped.any() and not dropped.all()


def test_distance_and_spacing_of_the_points_of_a_plane():
    depth = np.full((H, W), 2, np.float32)
    plane = ResultFrame(**{**vars(frame()), "depth": depth, "cam_from_world": np.eye(3, 4) + np.eye(3, 4, 3)})
    header, _ = unpack(pack(plane, 0, "depth", updated_ranges(None, plane), []))
    assert header["distance"] == pytest.approx(2.1, abs=0.1)  # from the camera, which is at (-1, 0, 0)
    assert header["spacing"] == pytest.approx(header["distance"] / 50, rel=0.05)  # focal length: 50 pixels
    assert header["pose"] == "Camera at (-1.000, 0.000, 0.000), field of view 58°"


def test_later_frames_have_fewer_points_and_their_first_points_are_a_random_sample(monkeypatch):
    monkeypatch.setattr(packet_module, "MAX_FRAME_POINTS", 1500)
    monkeypatch.setattr(packet_module, "MAX_SCENE_POINTS", 3000)
    stored = frame()
    counts = [len(sample_pixels(stored, position, "depth")) for position in range(6)]
    assert counts == [1500, 1500, 1000, 750, 600, 500]
    y, x = np.divmod(sample_pixels(stored, 0, "depth"), W)
    assert len(set(zip(y.tolist(), x.tolist(), strict=True))) == 1500
    # Of 500 uniform draws, the mean is within four standard errors of the middle.
    assert abs(x[:500].mean() - (W - 1) / 2) < 4 * W / 12**0.5 / 500**0.5
    assert abs(y[:500].mean() - (H + 1) / 2) < 4 * H / 12**0.5 / 500**0.5


def test_a_late_viewer_receives_only_the_points_it_keeps():
    stored = frame()
    packet = pack(stored, 0, "depth", updated_ranges(None, stored), [])
    (header, all), (less, some) = unpack(packet), unpack(truncate(packet, 100))
    assert less["num_points"] == 100
    np.testing.assert_array_equal(some["points"], all["points"][:300])
    np.testing.assert_array_equal(some["colors"], all["colors"][:300])
    np.testing.assert_array_equal(some["marks"], all["marks"][:100])
    np.testing.assert_array_equal(some["conf"], all["conf"][:100])
    np.testing.assert_array_equal(some["picture"], all["picture"])
    assert truncate(packet, header["num_points"]) == packet


def test_both_point_sources_sample_the_same_pixels():
    stored = frame()
    np.testing.assert_array_equal(sample_pixels(stored, 7, "depth"), sample_pixels(stored, 7, "head"))


def test_colors_of_images_change_slowly():
    first = updated_ranges(None, frame(0))
    near = ResultFrame(**{**vars(frame(1)), "depth": frame(1).depth / 10})
    second = updated_ranges(first, near)
    alone = updated_ranges(None, near)
    assert second.inverse_depth == pytest.approx(
        0.9 * np.array(first.inverse_depth) + 0.1 * np.array(alone.inverse_depth)
    )


def test_a_frame_without_any_depth_is_an_empty_packet():
    nothing = ResultFrame(**{**vars(frame()), "depth": np.full((H, W), np.nan, np.float32)})
    header, arrays = unpack(pack(nothing, 0, "depth", updated_ranges(None, nothing), []))
    assert header["num_points"] == 0
    assert arrays["points"].size == 0


def test_tracks_are_in_the_header():
    stored = frame()
    tracks = [Track(1.5, 2.5, 0.9, (1.0, 2.0, 3.0)), Track(-4.0, 0.0, 0.1, None)]
    header, _ = unpack(pack(stored, 0, "depth", updated_ranges(None, stored), tracks))
    assert header["tracks"] == [[1.5, 2.5, 0.9, 1.0, 2.0, 3.0], [-4.0, 0.0, 0.1]]
    assert torch.tensor(header["cam_from_world"]).reshape(3, 4).equal(torch.eye(3, 4))
