"""Pose-graph optimization of submaps with similarity edges (Levenberg-Marquardt on Sim(3)).

N submaps · E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from streamvggt.geometry.similarity import Sim3, stack

HUBER_DELTA = 0.05
"""Residual above which an edge has a linear cost, so that one false edge does not bend the graph."""
MAX_LOOP_RESIDUAL = 0.5
"""Residual above which a loop contradicts the other edges and is rejected."""
MAX_ITERATIONS = 50


@dataclass(frozen=True)
class Edge:
    """A measured similarity between two submaps.

    Attributes:
        old: Index of the first submap.
        new: Index of the second submap.
        old_from_new: Similarity between their worlds.
        scene_scale: Size of the scene in units of the old submap. Translations are divided by it.
        weight: Factor on the residual.
    """

    old: int
    new: int
    old_from_new: Sim3
    scene_scale: float
    weight: float = 1.0


def close_loops(
    worlds: Sequence[Sim3], odometry: Sequence[Edge], loops: Sequence[Edge]
) -> tuple[list[Sim3], list[Edge]]:
    """Optimize the submaps with the loops that do not contradict the other edges.

    While a loop has a residual above `MAX_LOOP_RESIDUAL`, the worst loop is removed.

    Args:
        worlds: Initial world_from_submap. N
        odometry: Edges between consecutive submaps. N - 1
        loops: Candidate loops.

    Returns:
        world_from_submap (N), and the accepted loops.
    """
    loops = list(loops)
    while loops:
        optimized = optimize(worlds, [*odometry, *loops])
        residuals = [edge_residual(loop, optimized) for loop in loops]
        worst = int(np.argmax(residuals))
        if residuals[worst] < MAX_LOOP_RESIDUAL:
            return optimized, loops
        loops.pop(worst)
    return list(worlds), []


def edge_residual(edge: Edge, worlds: Sequence[Sim3]) -> float:
    """Return the norm of an edge's residual: translation by scene scale, rotation in radians, log scale."""
    residual = (worlds[edge.old].inverse() @ worlds[edge.new] @ edge.old_from_new.inverse()).log()
    return torch.cat([residual[:3] / edge.scene_scale, residual[3:]]).norm().item()


def optimize(worlds: Sequence[Sim3], edges: Sequence[Edge]) -> list[Sim3]:
    """Minimize the pseudo-Huber cost of all edges; the first submap stays fixed.

    Levenberg-Marquardt with exact derivatives and a direct sparse factorization. Except for the loops the equations
    are banded. Iterative solvers, for example `scipy.optimize.least_squares`, take many times as long and stop early.

    Args:
        worlds: Initial world_from_submap, float64. N
        edges: At least one for each submap except the first. E

    Returns:
        world_from_submap. N
    """
    from scipy.sparse import csc_matrix, diags
    from scipy.sparse.linalg import spsolve

    start = stack(list(worlds))
    ends = torch.tensor([[edge.old, edge.new] for edge in edges])  # (E, 2)
    new_from_old = stack([edge.old_from_new for edge in edges]).inverse().to_vector()
    scale = torch.tensor(
        [[edge.weight / edge.scene_scale] * 3 + [edge.weight] * 4 for edge in edges], dtype=torch.float64
    )
    starts = start.to_vector()[ends]  # (E, 2, 13)
    entries, is_free, shape = _sparsity(ends, len(worlds))

    steps = torch.zeros(len(worlds), 7, dtype=torch.float64)  # Sim(3) logarithms of the motion from the start
    residuals = _residual(steps[ends], starts, new_from_old, scale)  # (E, 7)
    cost, damping = _huber(residuals), 1e-6
    for _ in range(MAX_ITERATIONS):
        slopes = vmap(jacrev(_residual))(steps[ends], starts, new_from_old, scale)  # (E, 7, 2, 7)
        jacobian = csc_matrix((slopes[is_free].numpy(), entries), shape)
        weight = diags((1 + (residuals / HUBER_DELTA).square().sum(-1)).rsqrt().repeat_interleave(7).numpy())
        hessian, gradient = jacobian.T @ weight @ jacobian, jacobian.T @ (weight @ residuals.flatten().numpy())
        previous = cost
        while damping < 1e6:
            step = spsolve((hessian + damping * diags(hessian.diagonal())).tocsc(), -gradient)
            candidate = steps.clone()
            candidate[1:] += torch.from_numpy(step).view(-1, 7)
            candidate_residuals = _residual(candidate[ends], starts, new_from_old, scale)
            if _huber(candidate_residuals) < cost:
                steps, residuals, cost = candidate, candidate_residuals, _huber(candidate_residuals)
                damping = max(damping / 10, 1e-9)
                break
            damping *= 10
        if previous - cost <= 1e-6 * previous:
            break
    moved = start @ Sim3.exp(steps)
    return [moved[index] for index in range(len(worlds))]


def _sparsity(ends: Tensor, num_submaps: int) -> tuple[tuple[np.ndarray, np.ndarray], Tensor, tuple[int, int]]:
    """Return row and column of each free Jacobian entry, the mask of free entries (E, 7, 2, 7), and the shape.

    Each edge has seven residuals that depend on seven parameters of both submaps. The first submap has none.
    """
    rows = 7 * torch.arange(len(ends))[:, None, None, None] + torch.arange(7)[:, None, None]
    columns = 7 * (ends[:, None, :, None] - 1) + torch.arange(7)
    rows, columns = (index.expand(-1, 7, 2, 7) for index in (rows, columns))
    is_free = columns >= 0
    entries = (rows[is_free].numpy(), columns[is_free].numpy())
    return entries, is_free, (7 * len(ends), 7 * (num_submaps - 1))


def _huber(residuals: Tensor) -> float:
    """Return the pseudo-Huber cost of the edges. (E, 7)"""
    squared = (residuals / HUBER_DELTA).square().sum(-1)
    return HUBER_DELTA**2 * ((1 + squared).sqrt() - 1).sum().item()


def _residual(steps: Tensor, starts: Tensor, new_from_old: Tensor, scale: Tensor) -> Tensor:
    """Return the weighted residuals of an edge. (..., 7)

    Args:
        steps: Motion of both submaps from the start. (..., 2, 7)
        starts: Initial world_from_submap as vectors. (..., 2, 13)
        new_from_old: Inverse of the measured similarity as a vector. (..., 13)
        scale: Factor per residual. (..., 7)
    """
    old, new = (
        Sim3.from_vector(start) @ Sim3.exp(step)
        for start, step in zip(starts.unbind(-2), steps.unbind(-2), strict=True)
    )
    difference = old.inverse() @ new @ Sim3.from_vector(new_from_old)
    return scale * difference.log()
