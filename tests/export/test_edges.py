"""Depth discontinuities: found between surfaces, not on them."""

import numpy as np

from streamvggt.export.edges import MAX_ANGLE, MAX_STEP, RADIUS, depth_edges, normal_cosine, relative_step

SIZE = (120, 160)
K = np.array([[140.0, 0, 80], [0, 140, 60], [0, 0, 1]])
ALL = np.ones(SIZE, bool)
LIMIT = MAX_STEP * 518 / 160


def plane(slope: float) -> np.ndarray:
    """Depth of a plane through (0, 0, 2) whose depth grows by `slope` per unit to the right. Float32 (H, W)"""
    x = (np.arange(SIZE[1]) - K[0, 2]) / K[0, 0]
    return np.broadcast_to(2 / (1 - slope * x), SIZE).astype(np.float32)


def normal_angle(depth: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(normal_cosine(depth, K, ALL).clip(-1, 1)))


def test_a_slanted_plane_has_steps_but_no_edge():
    depth = plane(1.7)
    assert (depth > 0).all() and relative_step(depth, ALL).max() > LIMIT
    assert normal_angle(depth).max() < 0.1
    assert not depth_edges(depth, K, ALL).any()


def test_a_crease_bends_the_normal_but_is_no_edge():
    """Two walls that meet in front of the camera."""
    depth = np.minimum(plane(1.0), plane(-1.0))
    assert normal_angle(depth)[:, 80].min() > 80 and relative_step(depth, ALL).max() < LIMIT
    assert not depth_edges(depth, K, ALL).any()


def test_both_sides_of_a_sharp_step_are_edges_and_nothing_else():
    depth = plane(0.0)
    depth[:, 70:] = 3
    edges = depth_edges(depth, K, ALL)
    assert edges[:, 69:71].all() and edges.sum() == 2 * SIZE[0]


def test_the_whole_ramp_between_two_surfaces_is_an_edge():
    """Depth interpolated over 2·RADIUS pixels: the middle of the ramp is a plane."""
    depth, width = plane(0.0), 2 * RADIUS
    depth[:, 70 + width :] = 6
    depth[:, 70 : 70 + width] = np.linspace(2, 6, width + 2)[1:-1]
    edges = depth_edges(depth, K, ALL)
    assert normal_angle(depth)[:, 70 + 1 : 70 + width - 1].max() < 10
    assert edges[:, 70 : 70 + width].all() and edges.sum() <= (width + 2) * SIZE[0]


def test_the_unit_does_not_matter():
    depth = plane(0.4)
    depth[30:60, 40:90] = 1
    edges = depth_edges(depth, K, ALL)
    assert edges.any() and np.array_equal(edges, depth_edges(100 * depth, K, ALL))


def test_what_is_invalid_is_no_edge_and_makes_none():
    depth, valid = plane(0.4), ALL.copy()
    depth[:, 70:74] = np.nan
    depth[50:60] = 0
    valid[:, 70:74] = valid[50:60] = False
    assert not depth_edges(depth, K, valid).any()


def test_the_filters_equal_the_criterion_pixel_by_pixel():
    """A rough depth map with holes, computed in float64 and one window at a time."""
    random = np.random.default_rng(0)
    height, width = 24, 32
    depth = random.choice([2.0, 2.2, 4.0], (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    depth += random.uniform(0, 0.02, depth.shape)
    valid = random.random(depth.shape) > 0.05
    intrinsics = np.array([[30.0, 0, 16], [0, 28, 12], [0, 0, 1]])
    depth, max_step = depth.astype(np.float32).astype(np.float64), MAX_STEP * 518 / width

    def normal(row: int, column: int) -> np.ndarray | None:
        """Of the corner above and to the left of a pixel."""
        if not (0 < row < height and 0 < column < width and valid[row - 1 : row + 1, column - 1 : column + 1].all()):
            return None
        rays = np.linalg.inv(intrinsics)
        a, b, c, d = (
            depth[y, x] * rays @ (x, y, 1)
            for y, x in ((row - 1, column - 1), (row - 1, column), (row, column - 1), (row, column))
        )
        crossed = np.cross(d - a, b - c)
        return crossed / np.linalg.norm(crossed)

    steps, bent = np.zeros(depth.shape, bool), np.zeros(depth.shape, bool)
    for row, column in np.ndindex(height, width):
        rows, columns = (slice(max(at - 1, 0), at + 2) for at in (row, column))
        near = depth[rows, columns][valid[rows, columns]]
        steps[row, column] = valid[row, column] and np.ptp(near) > max_step * depth[row, column]
        corners = [normal(row + y, column + x) for y in (0, 1) for x in (0, 1)]
        known = [corner for corner in corners if corner is not None]
        smallest = min((one @ other for one in known for other in known), default=1)
        bent[row, column] = smallest < np.cos(np.radians(MAX_ANGLE))
    expected = [
        steps[y, x] and bent[max(y - RADIUS, 0) : y + RADIUS + 1, max(x - RADIUS, 0) : x + RADIUS + 1].any()
        for y, x in np.ndindex(height, width)
    ]
    edges = depth_edges(depth.astype(np.float32), intrinsics, valid)
    assert 0 < edges.sum() < valid.sum()
    assert np.array_equal(edges, np.reshape(expected, edges.shape))
