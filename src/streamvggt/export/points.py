"""Merge the points of all frames into one cloud with bounded memory.

Two passes over the result: the first computes the confidence threshold, the second draws a uniform sample of all
points that pass the filter.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from streamvggt.export.result import PointSource, ReconstructionResult, ResultFrame
from streamvggt.export.sky import sky_mask

MAX_CONF_SAMPLES = 4_000_000
"""Number of sampled confidences for the percentile. For fewer points the percentile is exact."""

POINT_DTYPE = np.dtype(
    [
        ("point", np.float32, 3),
        ("color", np.uint8, 3),
        ("conf", np.float32),
        ("frame_index", np.int32),
        ("pixel", np.int32, 2),
    ]
)


class NothingLeft(ValueError):
    """Raised when an export has no point or no depth.

    Attributes:
        path: Path that was written without them. None if nothing was written.
    """

    def __init__(self, message: str, path: Path | None = None):
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class PointFilter:
    """Selection of the points to export. Padding, non-finite points and depths ≤ 0 are always excluded.

    Attributes:
        point_source: Points from depth maps and cameras ("depth") or from the point head ("head").
        conf_percentile: Percentage of least confident points to remove after the other filters, in [0, 100].
        frames: Start, stop and step of the stream positions, as of a forward slice.
        drop_white: Remove points with red, green and blue above 240.
        drop_black: Remove points whose sum of red, green and blue is below 16.
        drop_sky: Remove detected sky, see `streamvggt.export.sky`.
        drop_edges: Remove points at depth discontinuities, see `streamvggt.geometry.edges`.
        max_points: Maximum number of points, sampled uniformly.
    """

    point_source: PointSource = "depth"
    conf_percentile: float = 50.0
    frames: tuple[int | None, int | None, int | None] = (None, None, None)
    drop_white: bool = False
    drop_black: bool = False
    drop_sky: bool = False
    drop_edges: bool = True
    max_points: int = 1_000_000

    def __post_init__(self):
        if self.point_source not in ("depth", "head"):
            raise ValueError(f"points come from 'depth' or 'head', not {self.point_source!r}")
        if not 0 <= self.conf_percentile < 100:
            raise ValueError(f"the confidence percentile is at least 0 and below 100, not {self.conf_percentile}")
        if self.frames[2] is not None and self.frames[2] < 1:
            raise ValueError(f"the step between frames is at least 1, not {self.frames[2]}")
        if not self.selects_some():
            raise ValueError(f"no frame of any result is in the range {self.frames}: choose a start before the stop")
        if self.max_points < 1:
            raise ValueError(f"at least one point must be allowed, not {self.max_points}")

    def selects_some(self, most: int | None = None) -> bool:
        """Whether the frame range is non-empty for a result of any length, or of at most `most` frames."""
        start, stop, _ = self.frames
        before_start = start if start is not None and start >= 0 else 0
        after_stop = -stop if stop is not None and stop < 0 else 0
        lengths = (1, before_start + after_stop + 1)  # possible minimum lengths of a non-empty range
        return any(range(length)[slice(*self.frames)] for length in lengths if most is None or length <= most)

    def positions(self, result: ReconstructionResult) -> range:
        """Return the selected stream positions."""
        positions = range(len(result))[slice(*self.frames)]
        if not positions:
            raise ValueError(f"none of the {len(result)} frames is in the range {self.frames}")
        return positions

    def candidate_mask(self, frame: ResultFrame) -> np.ndarray:
        """Return where a frame has a point that passes all filters except confidence. Bool. (H, W)"""
        mask = frame.valid_mask(self.point_source)
        if self.drop_white:
            mask &= (frame.image <= 240).any(-1)
        if self.drop_black:
            mask &= frame.image.sum(-1, dtype=np.int32) >= 16
        if self.drop_sky:
            mask &= ~sky_mask(frame.image)
        if self.drop_edges:
            mask &= ~frame.edge_mask(self.point_source)
        return mask


@dataclass(frozen=True)
class PointCloud:
    """Colored points and their source pixels.

    Attributes:
        points: World points, float32. (N, 3)
        colors: RGB, uint8. (N, 3)
        conf: Confidence ≥ 1, float32. (N,)
        frame_index: Stream position of the frame, int32, ascending. (N,)
        pixel: (x, y) in the processed image of the frame, int32. (N, 2)
    """

    points: np.ndarray
    colors: np.ndarray
    conf: np.ndarray
    frame_index: np.ndarray
    pixel: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def sample(self, num_points: int, seed: int = 0) -> "PointCloud":
        """Return a uniform sample of at most `num_points` points in their original order."""
        reservoir = Reservoir(num_points, seed)
        reservoir.add(np.arange(len(self)))
        which = reservoir.sample()
        return PointCloud(*(values[which] for values in vars(self).values()))


class Reservoir:
    """Uniform sample of the rows of a stream of unknown length. Stores at most twice the budget between calls.

    Each row has a random key. The rows with the `budget` smallest keys are kept.
    """

    def __init__(self, budget: int, seed: int = 0):
        self.budget = budget
        self._random = np.random.default_rng(seed)
        self._rows: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._cutoff = 1.0  # rows with larger keys are discarded

    def add(self, rows: np.ndarray) -> None:
        """Add rows. All calls have equal dtypes. (N, ...)"""
        keys = self._random.random(len(rows))
        chosen = keys < self._cutoff
        self._rows.append(rows[chosen])
        self._keys.append(keys[chosen])
        if sum(map(len, self._keys)) > 2 * self.budget:
            self._compact()

    def sample(self) -> np.ndarray:
        """Return the sampled rows in the order of the stream. (≤ budget, ...)"""
        self._compact()
        return self._rows[0]

    def _compact(self) -> None:
        rows, keys = np.concatenate(self._rows), np.concatenate(self._keys)
        if len(keys) > self.budget:
            winners = np.sort(np.argpartition(keys, self.budget - 1)[: self.budget])
            rows, keys = rows[winners], keys[winners]
            self._cutoff = keys.max()
        self._rows, self._keys = [rows], [keys]


def confidence_threshold(result: ReconstructionResult, filter: PointFilter, seed: int = 0) -> float:
    """Return the confidence at `filter.conf_percentile` of all candidates."""
    if filter.conf_percentile == 0:
        return -np.inf
    reservoir = Reservoir(MAX_CONF_SAMPLES, seed)
    for _, frame in result.frames("confidence", filter.positions(result)):
        _, conf = frame.predicted(filter.point_source)
        reservoir.add(conf[filter.candidate_mask(frame)])
    conf = reservoir.sample()
    return float(np.percentile(conf, filter.conf_percentile)) if len(conf) else -np.inf


@lru_cache(maxsize=1)  # all exporters of one run use the same cloud
def merged_points(result: ReconstructionResult, filter: PointFilter, seed: int = 0) -> PointCloud:
    """Return the points of all frames that pass the filter. Deterministic for equal seeds."""
    threshold = confidence_threshold(result, filter, seed)
    reservoir = Reservoir(filter.max_points, seed)
    for position, frame in result.frames("points", filter.positions(result)):
        points, conf = frame.world_points(filter.point_source)
        y, x = np.nonzero(filter.candidate_mask(frame) & (conf >= threshold))
        rows = np.empty(len(x), POINT_DTYPE)
        rows["point"], rows["color"], rows["conf"] = points[y, x], frame.image[y, x], conf[y, x]
        rows["frame_index"], rows["pixel"] = position, np.stack([x, y], -1)
        reservoir.add(rows)
    rows = reservoir.sample()
    return PointCloud(*(np.ascontiguousarray(rows[name]) for name in POINT_DTYPE.names))
