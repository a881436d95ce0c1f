"""A chain that drifts is bent back by its loops, and not bent by a false one."""

import math

import pytest
import torch

from streamvggt.geometry.similarity import Sim3
from streamvggt.stream.submaps.pose_graph import Edge, close_loops, optimize
from streamvggt.stream.submaps.submap_graph import SubmapGraph

COUNT = 16


def around(count: int = COUNT) -> list[Sim3]:
    """Windows on a circle, each with its own scale, the last one next to the first."""
    generator = torch.Generator().manual_seed(0)
    scales = (0.3 * torch.randn(count, generator=generator, dtype=torch.float64)).exp()
    places = []
    for number in range(count):
        angle = 2 * math.pi * number / count
        turn = torch.tensor([0, 0, 0, 0, angle, 0, 0], dtype=torch.float64)
        center = torch.tensor([math.cos(angle), 0.1 * angle, math.sin(angle)], dtype=torch.float64) * 5
        places.append(Sim3(scales[number], Sim3.exp(turn).rotation, center))
    first = places[0].inverse()
    return [first @ place for place in places]


def chain(true: list[Sim3], drift: float) -> tuple[list[Sim3], list[Edge]]:
    """The windows as a chain of drifting steps puts them, and its edges."""
    error = Sim3.exp(drift * torch.tensor([0.1, 0.05, 0, 0.02, 0.05, 0, 0.03], dtype=torch.float64))
    edges, worlds = [], [true[0]]
    for number in range(1, len(true)):
        step = true[number - 1].inverse() @ true[number] @ error
        edges.append(Edge(number - 1, number, step, scene_scale=2.0))
        worlds.append(worlds[-1] @ step)
    return worlds, edges


def loop(true: list[Sim3], old: int, new: int) -> Edge:
    return Edge(old, new, true[old].inverse() @ true[new], scene_scale=2.0)


def furthest(found: list[Sim3], true: list[Sim3]) -> float:
    return max((a.translation - b.translation).norm().item() for a, b in zip(found, true, strict=True))


def test_edges_that_agree_are_met_exactly():
    true = around()
    _, edges = chain(true, drift=0)
    wander = torch.Generator().manual_seed(1)
    start = [true[0]] + [
        place @ Sim3.exp(0.2 * torch.randn(7, generator=wander, dtype=torch.float64)) for place in true[1:]
    ]
    found = optimize(start, [*edges, loop(true, 0, COUNT - 1)])
    assert furthest(start, true) > 0.2 and furthest(found, true) < 1e-3
    assert all(torch.allclose(a.to_vector(), b.to_vector(), atol=1e-3) for a, b in zip(found, true, strict=True))


@pytest.mark.parametrize("drift", [0.3, 1.0])
def test_loops_take_the_drift_away(drift):
    true = around()
    worlds, edges = chain(true, drift)
    found = optimize(worlds, [*edges, loop(true, 0, COUNT - 1)])
    assert furthest(found, true) < furthest(worlds, true) / 4
    more = optimize(worlds, [*edges, loop(true, 0, COUNT - 1), loop(true, 2, COUNT - 2), loop(true, 0, COUNT // 2)])
    assert furthest(more, true) < furthest(worlds, true) / 5
    assert torch.equal(found[0].to_vector(), true[0].to_vector())


def test_without_loops_nothing_moves():
    worlds, edges = chain(around(), drift=1)
    assert furthest(optimize(worlds, edges), worlds) < 1e-9


def test_a_false_loop_beside_right_ones_is_skipped():
    true = around()
    worlds, edges = chain(true, drift=0.3)
    right = [loop(true, 0, COUNT - 1), loop(true, 1, COUNT - 1), loop(true, 0, COUNT - 2)]
    false = Edge(4, COUNT - 3, Sim3.identity(), scene_scale=2.0)
    found, used = close_loops(worlds, edges, [right[0], false, *right[1:]])
    assert used == right and furthest(found, true) < furthest(worlds, true) / 4
    alone, used = close_loops(worlds, edges, [false])
    assert used == [] and alone == worlds


def test_edges_that_are_trusted_less_give_way():
    true = around(3)
    edges = [Edge(0, 1, true[1], 1.0), Edge(1, 2, true[1].inverse() @ true[2], 1.0, weight=0.01)]
    elsewhere = Sim3.exp(torch.tensor([0.2, 0, 0, 0, 0, 0, 0], dtype=torch.float64)) @ true[2]
    found = optimize(true, [*edges, Edge(0, 2, elsewhere, 1.0)])
    assert (found[2].translation - elsewhere.translation).norm() < 0.01


def test_a_loop_that_is_closed_already_moves_nothing():
    true = around()
    graph = SubmapGraph()
    for edge in chain(true, drift=0.3)[1]:
        graph.add_submap(edge.old_from_new, edge.scene_scale, 1.0)
    assert graph.add_loop(loop(true, 0, COUNT - 1))
    worlds = list(graph.worlds)
    again = Edge(0, COUNT - 1, worlds[0].inverse() @ worlds[-1], scene_scale=2.0)
    assert graph.add_loop(again) and len(graph.loops) == 2
    assert all(ours is theirs for ours, theirs in zip(graph.worlds, worlds, strict=True))
    assert graph.add_loop(loop(true, 2, COUNT - 2)) and graph.worlds[-1] is not worlds[-1]
