"""Where windows are, given where each is as seen from some others: a pose graph of similarities.

N windows · E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.sparse import csr_matrix
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
        stretched = [
            (places[loop.old].inverse() @ places[loop.new] @ loop.old_from_new.inverse()).log() for loop in loops
        ]
        sizes = [
            torch.cat([apart[:3] / loop.size, apart[3:]]).norm().item()
            for apart, loop in zip(stretched, loops, strict=True)
        ]
        worst = int(np.argmax(sizes))
        if sizes[worst] < STRETCHED:
            return places, loops
        loops.pop(worst)
    return list(worlds), []


def solve(worlds: Sequence[Similarity], edges: Sequence[Edge]) -> list[Similarity]:
    """The windows' places that agree best with all edges; the first window stays where it is.

    Small disagreements count squared, large ones in proportion (soft L1), which has no other minima to be caught in
    than those that turns by more than half a circle make.

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

    def steps_of(numbers: np.ndarray) -> Tensor:
        """The logarithms by which the windows move from the start, the first one's is nothing. (N, 7)"""
        return torch.cat([torch.zeros(1, 7, dtype=torch.float64), torch.from_numpy(numbers).view(-1, 7)])

    def residuals(numbers: np.ndarray) -> np.ndarray:
        return _disagreement(steps_of(numbers)[ends], starts, known, scale).flatten().numpy()

    # A window moves the seven residuals of each of its edges by seven numbers; those of the first are left out.
    rows = 7 * torch.arange(len(edges))[:, None, None, None] + torch.arange(7)[:, None, None]
    columns = 7 * (ends[:, None, :, None] - 1) + torch.arange(7)
    rows, columns = (index.expand(-1, 7, 2, 7) for index in (rows, columns))
    is_free = columns >= 0
    place = (rows[is_free].numpy(), columns[is_free].numpy())
    shape = (7 * len(edges), 7 * (len(worlds) - 1))

    def jacobian(numbers: np.ndarray) -> csr_matrix:
        slopes = vmap(jacrev(_disagreement))(steps_of(numbers)[ends], starts, known, scale)  # (E, 7, 2, 7)
        return csr_matrix((slopes[is_free].numpy(), place), shape)

    found = least_squares(
        residuals,
        np.zeros(shape[1]),
        jacobian,
        tr_solver="lsmr",
        tr_options={"atol": 1e-9, "btol": 1e-9},
        loss="soft_l1",
        f_scale=EXPECTED,
        max_nfev=50,
    )
    moved = start @ Similarity.exp(steps_of(found.x))
    return [moved[number] for number in range(len(worlds))]


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
