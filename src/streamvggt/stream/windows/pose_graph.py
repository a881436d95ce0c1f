"""Where windows are, given where each is as seen from some others: a pose graph of similarities.

N windows · E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csc_matrix, diags
from scipy.sparse.linalg import spsolve
from torch import Tensor
from torch.func import jacrev, vmap

from streamvggt.geometry.similarity import Similarity, stack

EXPECTED = 0.05
"""Disagreement of an edge from which on it counts in proportion, not squared: one false edge does not bend all."""


@dataclass(frozen=True)
class Edge:
    """What is known of two windows.

    old, new: their numbers.
    old_from_new: the similarity between their worlds.
    size: of what they see, in the old one's unit: shifts count as shares of it.
    weight: how much it is trusted.
    """

    old: int
    new: int
    old_from_new: Similarity
    size: float
    weight: float = 1.0


MAX_STEPS = 50
STRETCHED = 0.5
"""Disagreement that remains of a loop which the other edges contradict."""


def close_loops(
    worlds: Sequence[Similarity], steps: Sequence[Edge], loops: Sequence[Edge]
) -> tuple[list[Similarity], list[Edge]]:
    """The windows' places that agree with the steps from window to window, and with those loops that agree with them.

    Args:
        worlds: world_from_window to start at. N
        steps: from each window to the next. N - 1

    Returns:
        world_from_window, and the loops that were used: while one stays stretched, the worst is left out.
    """
    loops = list(loops)
    while loops:
        places = solve(worlds, [*steps, *loops])
        sizes = [stretch(loop, places) for loop in loops]
        worst = int(np.argmax(sizes))
        if sizes[worst] < STRETCHED:
            return places, loops
        loops.pop(worst)
    return list(worlds), []


def stretch(edge: Edge, worlds: Sequence[Similarity]) -> float:
    """How far an edge's two windows are from where it says: shares of its size, radians and logarithms together."""
    apart = (worlds[edge.old].inverse() @ worlds[edge.new] @ edge.old_from_new.inverse()).log()
    return torch.cat([apart[:3] / edge.size, apart[3:]]).norm().item()


def solve(worlds: Sequence[Similarity], edges: Sequence[Edge]) -> list[Similarity]:
    """The windows' places that agree best with all edges; the first window stays where it is.

    Small disagreements count squared, large ones in proportion (pseudo-Huber). Levenberg and Marquardt's steps with
    exact derivatives; the chain of windows makes their equations banded but for the loops, so they are factorised
    directly: iterative solvers, scipy's least_squares among them, take many times as long and stop early.

    Args:
        worlds: world_from_window to start at, float64. N
        edges: each window but the first on one at least. E

    Returns:
        world_from_window. N
    """
    start = stack(list(worlds))
    ends = torch.tensor([[edge.old, edge.new] for edge in edges])  # (E, 2)
    known = stack([edge.old_from_new for edge in edges]).inverse().flat()
    scale = torch.tensor([[edge.weight / edge.size] * 3 + [edge.weight] * 4 for edge in edges], dtype=torch.float64)
    starts = start.flat()[ends]  # (E, 2, 13)

    # A window moves the seven residuals of each of its edges by seven numbers; those of the first are left out.
    rows = 7 * torch.arange(len(edges))[:, None, None, None] + torch.arange(7)[:, None, None]
    columns = 7 * (ends[:, None, :, None] - 1) + torch.arange(7)
    rows, columns = (index.expand(-1, 7, 2, 7) for index in (rows, columns))
    is_free = columns >= 0
    place = (rows[is_free].numpy(), columns[is_free].numpy())
    shape = (7 * len(edges), 7 * (len(worlds) - 1))

    def residuals(steps: Tensor) -> Tensor:
        return _disagreement(steps[ends], starts, known, scale)  # (E, 7)

    steps = torch.zeros(len(worlds), 7, dtype=torch.float64)  # logarithms by which the windows move from the start
    apart = residuals(steps)
    cost, damping = _cost(apart), 1e-6
    for _ in range(MAX_STEPS):
        slopes = vmap(jacrev(_disagreement))(steps[ends], starts, known, scale)  # (E, 7, 2, 7)
        jacobian = csc_matrix((slopes[is_free].numpy(), place), shape)
        weight = diags((1 + (apart / EXPECTED).square().sum(-1)).rsqrt().repeat_interleave(7).numpy())
        hessian, gradient = jacobian.T @ weight @ jacobian, jacobian.T @ (weight @ apart.flatten().numpy())
        before = cost
        while damping < 1e6:
            step = spsolve((hessian + damping * diags(hessian.diagonal())).tocsc(), -gradient)
            tried = steps.clone()
            tried[1:] += torch.from_numpy(step).view(-1, 7)
            tried_apart = residuals(tried)
            if _cost(tried_apart) < cost:
                steps, apart, cost, damping = tried, tried_apart, _cost(tried_apart), max(damping / 10, 1e-9)
                break
            damping *= 10
        if before - cost <= 1e-6 * before:
            break
    moved = start @ Similarity.exp(steps)
    return [moved[number] for number in range(len(worlds))]


def _cost(apart: Tensor) -> float:
    """Of the edges' disagreements: half their square, or in proportion where they are large. (E, 7)"""
    squared = (apart / EXPECTED).square().sum(-1)
    return EXPECTED**2 * ((1 + squared).sqrt() - 1).sum().item()


def _disagreement(steps: Tensor, starts: Tensor, new_from_old: Tensor, scale: Tensor) -> Tensor:
    """How far an edge's two windows are from where it says.

    Args:
        steps: from the start. (..., 2, 7)
        starts: flat. (..., 2, 13)
        new_from_old: what the edge says, flat. (..., 13)
        scale: (..., 7)

    Returns:
        (..., 7)
    """
    old, new = (
        Similarity.from_flat(start) @ Similarity.exp(step)
        for start, step in zip(starts.unbind(-2), steps.unbind(-2), strict=True)
    )
    apart = old.inverse() @ new @ Similarity.from_flat(new_from_old)
    return scale * apart.log()
