"""Known cameras, known lengths and masks: applied to every frame, and to all that is made of it."""

from dataclasses import replace

import cv2
import numpy as np
import pycolmap
import pytest

from streamvggt.export import (
    EXPORTERS,
    Adjustments,
    ExportOptions,
    KnownDistance,
    adjusted,
    camera_change,
    merged_points,
)

ALL = ExportOptions(conf_percentile=0, drop_edges=False)


def test_nothing_known_changes_nothing(result):
    assert adjusted(result, Adjustments()) is result


def test_an_adjusted_result_has_the_frames_of_the_opened_one(scene, tmp_path):
    opened = scene.write(tmp_path, 2)
    scene.write(tmp_path, resume=2)  # the run goes on
    assert len(adjusted(opened, Adjustments(scale=2))) == 2


def test_known_intrinsics_unproject_and_are_exported(scene, result, tmp_path):
    """The focal length of the originals is doubled: what was seen at x = X/Z is now at half of that."""
    K = result[0].original_intrinsics
    known = adjusted(result, Adjustments(intrinsics=(2 * K[0, 0], 2 * K[1, 1], K[0, 2], K[1, 2])))
    before, after = (r[0].world_points("depth")[0] for r in (result, known))
    np.testing.assert_allclose(after[..., :2], before[..., :2] / 2, atol=1e-5)
    np.testing.assert_allclose(after[..., 2], before[..., 2], atol=1e-5)
    model = pycolmap.Reconstruction(EXPORTERS["colmap"](known, tmp_path, ALL) / "sparse" / "0")
    (camera,) = model.cameras.values()
    np.testing.assert_allclose(camera.params, [2 * K[0, 0], 2 * K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5])


def test_the_field_of_view_is_that_of_the_longer_side(result):
    K = adjusted(result, Adjustments(fov=90))[0].original_intrinsics
    np.testing.assert_allclose(K, [[75, 0, 74.5], [0, 75, 59.5], [0, 0, 1]], atol=1e-9)  # of 150×120 pixels


def test_a_known_camera_of_a_stream_is_that_of_its_result(scene, result, tmp_path):
    known = Adjustments(fov=90)
    stream = scene.write(tmp_path / "stream", change=camera_change(known))
    for stored, expected in zip(stream, adjusted(result, known), strict=True):
        np.testing.assert_allclose(stored.intrinsics, expected.intrinsics)
    assert camera_change(Adjustments())(frame := result[0]) is frame


def test_intrinsics_in_pixels_are_of_one_size_also_in_a_stream(result):
    change = camera_change(Adjustments(intrinsics=(100, 100, 75, 60)))
    change(result[0])
    with pytest.raises(ValueError, match="--intrinsics: expected images of one size, got 2 sizes"):
        change(replace(result[1], original_size=(60, 75)))


def test_shared_intrinsics_are_the_median(scene, tmp_path):
    for factor, prediction in zip((0.9, 1.0, 1.3, 1.1, 0.7), scene.predictions, strict=True):
        prediction.pose_enc[..., 7:] *= factor
    result = scene.write(tmp_path / "varied")
    focal = [camera.original_intrinsics[0, 0] for camera in result.cameras()]
    assert len(set(focal)) == 5
    shared = [camera.original_intrinsics for camera in adjusted(result, Adjustments(shared_intrinsics=True)).cameras()]
    for K in shared:
        np.testing.assert_allclose(K, shared[0])
    assert shared[0][0, 0] == pytest.approx(np.median(focal))


def test_a_factor_scales_points_cameras_and_depth_alike(scene, result, tmp_path):
    scaled = adjusted(result, Adjustments(scale=2.5))
    before, after = (merged_points(r, ALL).points for r in (result, scaled))
    np.testing.assert_allclose(after, 2.5 * before, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaled.camera(3).cam_from_world[:, 3], 2.5 * scene.poses[3][:, 3], atol=1e-9)
    lines = np.loadtxt(EXPORTERS["tum"](scaled, tmp_path, ALL))
    np.testing.assert_allclose(
        lines[:, 1:4], 2.5 * np.loadtxt(EXPORTERS["tum"](result, tmp_path, ALL))[:, 1:4], atol=1e-7
    )


def test_a_known_distance_gives_meters(result):
    """Two pixels on the wall, in pixels of the original."""
    known = KnownDistance((20, 20), (20, 100), 3.5)
    scaled = adjusted(result, Adjustments(known_distance=known))
    frame = scaled[0]
    points, _ = frame.world_points("depth")
    ends = [
        np.rint(np.linalg.inv(frame.original_from_image) @ [*p, 1]).astype(int) for p in (known.first, known.second)
    ]
    first, second = (points[y, x] for x, y, _ in ends)
    assert np.linalg.norm(first - second) == pytest.approx(3.5, rel=1e-5)
    assert first[2] == pytest.approx(second[2]) and scaled[4].depth.max() > 1.1 * result[4].depth.max()


@pytest.mark.parametrize("pixel", [(-10, 5), (400, 5), (5, 130)])
def test_a_pixel_without_a_depth_gives_no_scale(result, pixel):
    with pytest.raises(ValueError, match="--known-distance: expected a pixel with a depth in image view_0000"):
        adjusted(result, Adjustments(known_distance=KnownDistance((20, 20), pixel, 1)))


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"fov": 60, "shared_intrinsics": True}, "expected one of them, got several"),
        ({"intrinsics": (0, 1, 2, 3)}, "focal lengths above 0"),
        ({"fov": 180}, "degrees between 0 and 180"),
        ({"scale": 0}, "--scale: expected a factor above 0"),
        ({"scale": 2, "known_distance": KnownDistance((0, 0), (1, 1), 1)}, "got both"),
    ],
)
def test_facts_that_contradict_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Adjustments(**wrong)


def test_one_camera_for_images_of_two_sizes_is_refused(scene, tmp_path):
    scene.frames[1] = replace(scene.frames[1], original=scene.frames[1].original[:60])
    with pytest.raises(ValueError, match="expected images of one size, got 2 sizes"):
        adjusted(scene.write(tmp_path / "sizes"), Adjustments(intrinsics=(100, 100, 75, 60)))


@pytest.fixture
def masks(result, tmp_path):
    """Masks that keep the upper half, of half the size of the images, named in both ways."""
    folder = tmp_path / "masks"
    folder.mkdir()
    mask = np.zeros((60, 75), np.uint8)
    mask[:30] = 1
    for number, camera in enumerate(result.cameras()):
        name = f"{camera.name}.jpg.png" if number % 2 else f"{camera.name}.png"
        (folder / name).write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    return folder


def test_masked_pixels_are_in_no_export(result, masks, tmp_path):
    masked = adjusted(result, Adjustments(masks=masks))
    cloud = merged_points(masked, ALL)
    assert len(cloud) == 5 * 15 * 40 and cloud.pixel[:, 1].max() == 20  # of rows 6 to 35
    EXPORTERS["depth"](masked, tmp_path, ALL)
    with np.load(tmp_path / "depth" / "view_0010.npz") as arrays:
        assert not arrays["depth"][21:].any() and arrays["depth"][6:21, 8:48].all()


def test_a_pixel_is_masked_by_the_mask_pixel_at_its_center(result, masks):
    """Processed pixels have 3.75×4 pixels of the original, so the center of the third column is at 9.375."""
    mask = np.zeros((120, 150), np.uint8)
    mask[2:, 9:] = 1
    for path in masks.iterdir():
        path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    cloud = merged_points(adjusted(result, Adjustments(masks=masks)), ALL)
    assert len(cloud) == 5 * 30 * 38 and cloud.pixel.min(0).tolist() == [8 + 2, 6]


def test_a_frame_without_a_mask_is_reported(result, masks):
    (masks / "view_0020.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"got none for 1 of 5; the first: view_0020.png"):
        adjusted(result, Adjustments(masks=masks))
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        adjusted(result, Adjustments(masks=masks / "none"))


def test_a_mask_of_another_shape_is_reported(result, masks):
    (masks / "view_0020.png").write_bytes(cv2.imencode(".png", np.ones((50, 50), np.uint8))[1].tobytes())
    with pytest.raises(ValueError, match="expected the aspect ratio of 150×120"):
        merged_points(adjusted(result, Adjustments(masks=masks)), ALL)
