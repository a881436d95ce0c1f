"""The COLMAP model, judged by pycolmap's own cameras and poses."""

import json
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from PIL import Image

from streamvggt.export import (
    EXPORTERS,
    ExportOptions,
    NothingLeft,
    ReconstructionResult,
    ResultWriter,
    export_colmap,
    merged_points,
)

FILTER = ExportOptions(conf_percentile=20)


@pytest.fixture
def model(result) -> pycolmap.Reconstruction:
    return pycolmap.Reconstruction(EXPORTERS["colmap"](result, result.folder, FILTER) / "sparse" / "0")


def observations(model):
    """All (point, image, 2-D point)."""
    for point in model.points3D.values():
        for element in point.track.elements:
            image = model.image(element.image_id)
            yield point, image, image.points2D[element.point2D_idx].xy


def test_all_files_of_the_model_are_there(result, model):
    names = {path.name for path in (result.folder / "colmap" / "sparse" / "0").iterdir()}
    assert {"cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin"} <= names
    assert (model.num_images(), model.num_cameras(), model.num_reg_images(), model.num_frames()) == (5, 1, 5, 5)
    assert 0.9 < model.num_points3D() / len(merged_points(result, FILTER)) <= 1
    assert not (result.folder / "colmap" / "image_names.json").exists()


def test_cameras_are_those_of_the_original_images(scene, model):
    for position, image in enumerate(model.images[id] for id in sorted(model.images)):
        frame, camera = scene.frames[position], image.camera
        assert image.name == f"{frame.name}.jpg" and camera.model_name == "PINHOLE"
        assert (camera.height, camera.width) == frame.original.shape[:2]
        expected = frame.original_from_image @ scene.intrinsics
        expected[:2, 2] += 0.5
        np.testing.assert_allclose(camera.calibration_matrix(), expected, atol=1e-9)
        np.testing.assert_allclose(image.cam_from_world().matrix(), scene.poses[position], atol=1e-9)


def test_points_reproject_to_where_they_are_observed(model):
    errors = [np.linalg.norm(image.project_point(p.xyz) - xy) for p, image, xy in observations(model)]
    assert max(errors) < 0.05
    assert max(point.error for point in model.points3D.values()) < 0.05


def test_the_source_observation_is_the_pixel_it_was_measured_at(scene, result, model):
    """And the center of the first pixel is (0.5, 0.5) in COLMAP."""
    cloud = merged_points(result, FILTER)
    measured = {point.tobytes(): number for number, point in enumerate(cloud.points)}
    for point in list(model.points3D.values())[::50]:
        number = measured[point.xyz.astype(np.float32).tobytes()]
        source = model.image(int(cloud.frame_index[number]) + 1)
        (element,) = (e for e in point.track.elements if e.image_id == source.image_id)
        pixel = scene.frames[0].original_from_image @ [*cloud.pixel[number], 1]
        np.testing.assert_allclose(source.points2D[element.point2D_idx].xy, pixel[:2] + 0.5, atol=1e-9)
        np.testing.assert_array_equal(point.color, cloud.colors[number])


def test_points_and_images_name_each_other(model):
    for id, point in model.points3D.items():
        assert point.track.length() >= 2
        for element in point.track.elements:
            assert model.image(element.image_id).points2D[element.point2D_idx].point3D_id == id
    assert all(point2D.has_point3D() for image in model.images.values() for point2D in image.points2D)


def test_the_model_can_be_adjusted(model):
    before = model.compute_mean_reprojection_error()
    pycolmap.bundle_adjustment(model, pycolmap.BundleAdjustmentOptions())
    assert model.compute_mean_reprojection_error() <= before + 1e-6


def test_names_that_readers_stumble_on_are_replaced(scene, tmp_path):
    names = ["写真0", "two words", "image_000000", "café", "plain-1.5"]
    for number, name in enumerate(names):
        scene.frames[number] = replace(scene.frames[number], name=name)
    result = scene.write(tmp_path)
    folder = export_colmap(result, tmp_path, FILTER)
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    exported = [model.images[id].name for id in sorted(model.images)]
    assert exported == [
        "image_000000_.jpg",
        "image_000001.jpg",
        "image_000000.jpg",
        "image_000003.jpg",
        "plain-1.5.jpg",
    ]
    table = json.loads((folder / "image_names.json").read_text(encoding="utf-8"))
    assert table == dict(zip(exported, (f"{name}.jpg" for name in names), strict=True))
    assert sorted(path.name for path in (folder / "images").iterdir()) == sorted(exported)
    for new, old in table.items():
        assert (folder / "images" / new).read_bytes() == (tmp_path / "images" / old).read_bytes()


def test_the_image_shows_the_points_color_where_it_is_observed(scene, model):
    """Ties originals, cameras, points and colors together: a shift of a few pixels would show."""
    differences = []
    for point, image, xy in observations(model):
        x, y = np.floor(xy).astype(int)
        original = scene.frames[image.image_id - 1].original
        if 0 <= x < original.shape[1] and 0 <= y < original.shape[0]:
            differences.append(np.abs(original[y, x].astype(int) - point.color).max())
    assert np.mean(differences) < 3 and np.percentile(differences, 99) < 12


def test_neighbors_that_see_a_point_are_in_its_track(scene, model):
    assert np.mean([point.track.length() for point in model.points3D.values()]) > 3
    for point in model.points3D.values():
        ids = [element.image_id for element in point.track.elements]
        assert len(set(ids)) == len(ids) and max(ids) - min(ids) <= 4


def test_a_hidden_point_is_not_observed(scene, result, model):
    """A wall point behind the ball in another view must not be in that view's track."""
    hidden = 0
    for point, image, _ in observations(model):
        if point.xyz[2] < 3.9:
            continue
        center = image.projection_center()
        ray = point.xyz - center
        closest = center + ray * np.dot([0.1, 0, 2.5] - center, ray) / np.dot(ray, ray)
        hidden += np.linalg.norm(closest - [0.1, 0, 2.5]) < 0.4  # well inside the silhouette, radius 0.5
    assert hidden == 0


def test_images_are_beside_the_model(scene, result, model):
    for frame in scene.frames:
        path = result.folder / "colmap" / "images" / f"{frame.name}.jpg"
        with Image.open(path) as image:
            assert image.size == (150, 120)
        assert path.samefile(result.folder / "images" / path.name)


def test_images_are_copied_where_links_are_not_possible(result, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    folder = export_colmap(result, result.folder, FILTER)
    path = folder / "images" / "view_0000.jpg"
    assert path.read_bytes() == (result.folder / "images" / path.name).read_bytes()
    (result.folder / "images" / path.name).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 images cannot be used.*view_0000\.jpg is missing"):
        export_colmap(result, result.folder, FILTER)
    assert path.exists() and not list(result.folder.glob(".*"))  # the earlier export is still whole


def test_budget_and_frames_are_respected(result):
    folder = export_colmap(result, result.folder, replace(FILTER, frames=(1, None, 2)), num_points=200)
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    assert 0 < model.num_points3D() <= 200
    assert sorted(image.name for image in model.images.values()) == ["view_0010.jpg", "view_0030.jpg"]


def test_points_of_the_head_work_and_show_their_error(scene, tmp_path):
    for prediction in scene.predictions:
        prediction.points[..., 0] += 0.02
    result = scene.write(tmp_path)
    folder = export_colmap(result, tmp_path, replace(FILTER, point_source="head"), num_points=300)
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    # Off by the shift times focal length over depth where it was measured, by nothing where it was projected to.
    errors = [point.error * point.track.length() for point in model.points3D.values()]
    assert np.median(errors) == pytest.approx(0.02 * 60 * 3.75 / 3.9, rel=0.2)


@pytest.mark.parametrize("depth, reason", [(np.inf, "no points are left"), (3.0, "no point is seen by two frames")])
def test_one_frame_is_still_a_model_without_points(scene, tmp_path, depth, reason):
    scene.predictions[0].depth[:] = depth
    ResultWriter(tmp_path).add(scene.frames[0], scene.predictions[0])
    with pytest.raises(NothingLeft, match=f"{reason}.*only cameras and images") as caught:
        export_colmap(ReconstructionResult(tmp_path), tmp_path, FILTER)
    model = pycolmap.Reconstruction(caught.value.path / "sparse" / "0")
    assert (model.num_reg_images(), model.num_points3D()) == (1, 0)
