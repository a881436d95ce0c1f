"""PLY and GLB: read back by trimesh, the points lie on the surfaces and the cameras stand where they stood."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from streamvggt.export import EXPORTERS, PointFilter, Result, ResultWriter, merged_points
from streamvggt.export.glb import linear_from_srgb, unit_frustum

ALL = PointFilter(conf_percentile=0)
FLIP = np.array([1, -1, -1])


def test_ply_holds_the_cloud(scene, result):
    path = EXPORTERS["ply"](result, result.folder, PointFilter())
    assert path == result.folder / "points.ply"
    assert b"format binary_little_endian 1.0" in path.read_bytes()[:200]
    cloud, read = merged_points(result, PointFilter()), trimesh.load(path)
    np.testing.assert_array_equal(read.vertices.astype(np.float32), cloud.points)
    np.testing.assert_array_equal(read.colors[:, :3], cloud.colors)
    assert scene.distance(read.vertices).max() < 1e-5


def test_glb_holds_cloud_and_cameras_in_gltf_axes(scene, result):
    path = EXPORTERS["glb"](result, result.folder, ALL)
    assert path == result.folder / "scene.glb"
    geometry = trimesh.load(path, process=False).geometry
    points = geometry["points"]
    cloud = merged_points(result, ALL)
    np.testing.assert_allclose(points.vertices * FLIP, cloud.points, atol=1e-6)
    assert scene.distance(points.vertices * FLIP).max() < 1e-5
    np.testing.assert_array_equal(points.colors[:, :3], linear_from_srgb(cloud.colors))

    wires = geometry["cameras"].vertices.reshape(len(result), -1, 3) * FLIP  # one frustum per frame
    for wire, pose in zip(wires, scene.poses, strict=True):
        in_camera = wire @ pose[:, :3].T + pose[:, 3]
        deepest = in_camera[:, 2].max()
        np.testing.assert_allclose(
            in_camera[:, 2].min(), 0, atol=0.03 * deepest
        )  # the apex is the camera, it looks at z
        assert 0 < deepest < 0.5
        # As wide and high as the view of the original, from border to border of its pixels, but for the bars' width.
        low, high = in_camera[:, :2].min(0) / deepest, in_camera[:, :2].max(0) / deepest
        np.testing.assert_allclose(low, [(7.5 - 28) / 60, (5.5 - 21) / 55], atol=0.012)
        np.testing.assert_allclose(high, [(47.5 - 28) / 60, (35.5 - 21) / 55], atol=0.012)


def test_frusta_change_colour_along_time(result):
    path = EXPORTERS["glb"](result, result.folder, ALL)
    visual = trimesh.load(path, process=False).geometry["cameras"].visual
    colors = visual.vertex_attributes["color"].reshape(len(result), -1, 4)
    assert (colors == colors[:, :1]).all() and len(np.unique(colors[:, 0], axis=0)) == len(result)
    assert b"KHR_materials_unlit" in path.read_bytes()
    assert len(unit_frustum().split()) == 8  # bars


def test_one_frame_and_no_point_is_still_a_scene(scene, tmp_path):
    scene.predictions[0].depth[:] = 0
    ResultWriter(tmp_path).add(scene.frames[0], scene.predictions[0])
    result = Result(tmp_path)
    assert list(trimesh.load(EXPORTERS["glb"](result, tmp_path, ALL)).geometry) == ["cameras"]
    with pytest.raises(ValueError, match="no points are left"):
        EXPORTERS["ply"](result, tmp_path, ALL)
    assert not (tmp_path / "points.ply").exists()


def test_the_cloud_is_merged_once_for_several_exports(result, monkeypatch):
    EXPORTERS["ply"](result, result.folder, ALL)
    monkeypatch.setattr(Result, "frames", None)
    EXPORTERS["glb"](result, result.folder, ALL)


def test_chosen_frames_are_the_cameras_drawn(result):
    path = EXPORTERS["glb"](result, result.folder, replace(ALL, frames=(2, 4, None)))
    vertices = trimesh.load(path, process=False).geometry["cameras"].vertices
    assert len(vertices) == 2 * len(unit_frustum().vertices)
