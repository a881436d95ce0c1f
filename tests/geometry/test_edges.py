"""Depth discontinuities: found between surfaces, not on them."""

import torch

from streamvggt.geometry.edges import MAX_STEP, RADIUS, depth_edges, normal_angle, relative_step

SIZE = (120, 160)
K = torch.tensor([[140.0, 0, 80], [0, 140, 60], [0, 0, 1]])
ALL = torch.ones(SIZE, dtype=torch.bool)
LIMIT = MAX_STEP * 518 / 160


def plane(slope: float) -> torch.Tensor:
    """Depth of a plane through (0, 0, 2) whose depth grows by `slope` per unit to the right. (H, W)"""
    x = (torch.arange(SIZE[1]) - K[0, 2]) / K[0, 0]
    return (2 / (1 - slope * x)).expand(SIZE).contiguous()


def test_a_slanted_plane_has_steps_but_no_edge():
    depth = plane(1.7)
    assert (depth > 0).all() and relative_step(depth, ALL).max() > LIMIT
    assert normal_angle(depth, K, ALL).max() < 0.1
    assert not depth_edges(depth, K, ALL).any()


def test_a_crease_bends_the_normal_but_is_no_edge():
    """Two walls that meet in front of the camera."""
    depth = torch.minimum(plane(1.0), plane(-1.0))
    assert normal_angle(depth, K, ALL)[:, 80].min() > 80 and relative_step(depth, ALL).max() < LIMIT
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
    depth[:, 70 : 70 + width] = torch.linspace(2, 6, width + 2)[1:-1]
    edges = depth_edges(depth, K, ALL)
    assert normal_angle(depth, K, ALL)[:, 70 + 1 : 70 + width - 1].max() < 10
    assert edges[:, 70 : 70 + width].all() and edges.sum() <= (width + 2) * SIZE[0]


def test_unit_and_batch_do_not_matter():
    depth = plane(0.4)
    depth[30:60, 40:90] = 1
    both = torch.stack([depth, 100 * depth])
    edges = depth_edges(both, K.expand(2, 3, 3), ALL.expand(2, *SIZE))
    assert edges[0].any() and torch.equal(edges[0], edges[1])
    assert torch.equal(edges[0], depth_edges(depth, K, ALL))


def test_what_is_invalid_is_no_edge_and_makes_none():
    depth, valid = plane(0.4), ALL.clone()
    depth[:, 70:74] = torch.nan
    depth[50:60] = 0
    valid[:, 70:74] = valid[50:60] = False
    assert not depth_edges(depth, K, valid).any()
