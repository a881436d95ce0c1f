"""The mesh: on the surfaces, seen from the front, cut between objects."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from streamvggt.export import EXPORTERS, ExportOptions, NothingLeft, ReconstructionResult, ResultWriter
from streamvggt.export.mesh import frame_mesh, grid_triangles

ALL = ExportOptions(conf_percentile=0)
FLIP = np.array([1, -1, -1])


def test_the_mesh_lies_on_the_surfaces_and_faces_the_cameras(scene, result, tmp_path):
    meshes = trimesh.load(EXPORTERS["mesh"](result, tmp_path, ALL), process=False).geometry
    assert list(meshes) == [frame.name for frame in scene.frames]
    for mesh, pose in zip(meshes.values(), scene.poses, strict=True):
        center = -pose[:, :3].T @ pose[:, 3]
        middles, normals = mesh.triangles_center * FLIP, mesh.face_normals * FLIP
        assert scene.distance(middles).max() < 0.03  # flat triangles on a ball
        assert ((center - middles) * normals).sum(-1).min() > 0
        assert len(mesh.faces) > 0.7 * 2 * 29 * 39


def test_vertices_have_the_colors_of_their_pixels(result):
    frame = result[0]
    shape = frame_mesh(frame, ALL, threshold=0, step=1)
    points = (frame.world_points("depth")[0] * FLIP).reshape(-1, 3).astype(np.float32)
    pixels = [np.linalg.norm(points - vertex, axis=1).argmin() for vertex in shape.positions[::50]]
    np.testing.assert_array_equal(shape.colors[::50], frame.image.reshape(-1, 3)[pixels])


def test_without_the_edge_mask_ball_and_wall_are_joined(scene, result, tmp_path):
    (first, *_) = trimesh.load(EXPORTERS["mesh"](result, tmp_path, replace(ALL, drop_edges=False))).geometry.values()
    assert scene.distance(first.triangles_center * FLIP).max() > 0.2


def test_fewer_vertices_still_cut_the_mesh(scene, result, tmp_path):
    options = replace(ALL, max_points=5 * 42 * 56 // 9)
    meshes = trimesh.load(EXPORTERS["mesh"](result, tmp_path, options), process=False).geometry.values()
    assert 0 < sum(len(mesh.vertices) for mesh in meshes) <= options.max_points
    assert max(scene.distance(mesh.triangles_center * FLIP).max() for mesh in meshes) < 0.15


def test_cells_by_hand():
    """A grid of 3×4 pixels with one hole: three of six cells touch it twice, at its corners."""
    keeps = np.ones((3, 4), bool)
    keeps[0, 1] = False
    used, triangles = grid_triangles(keeps, 1)
    assert used.tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11] and len(triangles) == 2 * 4
    used, triangles = grid_triangles(np.ones((3, 4), bool), 2)
    assert used.tolist() == [0, 2, 8, 10] and sorted(map(sorted, triangles.tolist())) == [[0, 1, 2], [1, 2, 3]]
    keeps = np.ones((3, 4), bool)
    keeps[1] = False  # between the vertices
    assert len(grid_triangles(keeps, 2)[1]) == 0


def test_no_triangle_is_an_error(scene, tmp_path):
    scene.predictions[0].depth[:] = 0
    ResultWriter(tmp_path).add(scene.frames[0], scene.predictions[0])
    with pytest.raises(NothingLeft, match="no triangles are left"):
        EXPORTERS["mesh"](ReconstructionResult(tmp_path), tmp_path, ALL)
    assert not (tmp_path / "mesh.glb").exists()
