"""Overlap of frames in a room with known overlap."""

import numpy as np
import pytest

from streamvggt.datasets._covisibility import LowResFrame, covisible, overlaps
from streamvggt.datasets._raycast import MeshDepthRenderer

K = np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]])
WALL = np.array([[-50, -50, 4], [50, -50, 4], [50, 50, 4], [-50, 50, 4]], float), np.array([[0, 1, 2], [0, 2, 3]])


def camera(x=0.0, turn=0.0, forward=0.0):
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    pose[:3, 3] = x, 0, forward
    return pose


def frame(pose, mesh=None, size=(48, 64)):
    mesh = mesh or MeshDepthRenderer(*WALL)
    return LowResFrame.of(mesh.depth(K, pose, size), K, pose)


def test_overlap_is_the_share_of_the_image_that_the_other_sees():
    """Before a wall 4 m away a picture is 6.4 m wide."""
    shares = overlaps([frame(camera()), frame(camera(x=1.6)), frame(camera(x=6.5)), frame(camera(turn=np.pi))])
    assert shares[0, 1] == pytest.approx(0.75, abs=0.04) == shares[1, 0]
    assert shares[0, 2] == 0 and shares[0, 3] == 0
    assert shares[3].max() == 0, "who sees nothing overlaps nobody"


def test_a_close_look_and_the_whole_view_overlap_little():
    near = frame(camera(forward=3.0))
    shares = overlaps([frame(camera()), near])
    assert shares[1, 0] == 1 and shares[0, 1] == pytest.approx(1 / 16, abs=0.03)
    assert covisible([frame(camera()), near]) == {}


def test_what_is_hidden_is_not_seen():
    """A board before the wall hides it from one camera and not from the other, which stands before the board."""
    board = np.array([[-50, -50, 2], [50, -50, 2], [50, 50, 2], [-50, 50, 2]], float)
    mesh = MeshDepthRenderer(np.concatenate([WALL[0], board]), np.concatenate([WALL[1], WALL[1] + 4]))
    behind, before = frame(camera(), mesh), frame(camera(forward=2.5), mesh)
    assert np.array_equal(overlaps([behind, before]), np.eye(2))


def test_neighbors_come_best_first_and_only_if_there_are_any():
    frames = [frame(camera(x)) for x in (0, 3.0, 1.0, 60)]
    groups = covisible(frames)
    assert [number for number, _ in groups[0]] == [2, 1] and 3 not in groups
    assert all(shares == sorted(shares, reverse=True) for shares in [[s for _, s in g] for g in groups.values()])


def test_small_cameras_project_where_large_ones_do():
    """Pixel centers stay put: a pixel of the small depth is a true point of the wall."""
    pose = camera(turn=0.4)
    large = np.diag([10, 10, 1.0]) @ K + np.array([[0, 0, 4.5], [0, 0, 4.5], [0, 0, 0]])
    small = LowResFrame.of(MeshDepthRenderer(*WALL).depth(large, pose, (480, 640)), large, pose)
    np.testing.assert_allclose(small.intrinsics, K, atol=1e-9)
    again = MeshDepthRenderer(*WALL).depth(small.intrinsics, pose, small.depth.shape)
    np.testing.assert_allclose(small.depth, again, rtol=2e-3)  # of the nearest large pixel


def test_mesh_depth_is_along_the_axis_and_zero_beside_it():
    square = np.array([[-1, -1, 4], [1, -1, 4], [1, 1, 4], [-1, 1, 4]], float)
    depth = MeshDepthRenderer(square, WALL[1]).depth(K, np.eye(4), (48, 64))
    assert np.unique(depth).tolist() == [0, pytest.approx(4)]
    seen = np.argwhere(depth > 0)  # ±1 m at 4 m is ±10 pixels about (31.5, 23.5)
    assert seen.min(0).tolist() == [14, 22] and seen.max(0).tolist() == [33, 41]
