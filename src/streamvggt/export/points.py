"""Merge the points of all frames into one cloud with bounded memory.

Two passes over the result: the first computes the confidence threshold, the second draws a uniform sample of all
points that pass the options.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from streamvggt.export.options import ExportOptions
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import ResultFrame

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
        keys = np.concatenate(self._keys)
        if len(keys) > self.budget:
            self._cutoff = np.partition(keys, self.budget - 1)[self.budget - 1]
            # Select before joining, because rows are larger than keys.
            winners = [np.flatnonzero(part <= self._cutoff) for part in self._keys]
            self._rows = [rows.take(chosen, 0) for rows, chosen in zip(self._rows, winners, strict=True)]
            keys = keys[keys <= self._cutoff]
        # The slices decide between equal keys.
        self._rows, self._keys = [np.concatenate(self._rows)[: self.budget]], [keys[: self.budget]]


def confidence_threshold(result: ReconstructionResult, options: ExportOptions, seed: int = 0) -> float:
    """Return the confidence at `options.conf_percentile` of all candidates."""
    if options.conf_percentile == 0:
        return -np.inf
    reservoir = Reservoir(MAX_CONF_SAMPLES, seed)
    of_candidates = partial(_candidate_conf, options=options)
    for _, conf in result.mapped("confidence", of_candidates, options.positions(result)):
        reservoir.add(conf)
    conf = reservoir.sample()
    return float(np.percentile(conf, options.conf_percentile)) if len(conf) else -np.inf


@lru_cache(maxsize=1)  # all exporters of one run use the same cloud
def merged_points(result: ReconstructionResult, options: ExportOptions, seed: int = 0) -> PointCloud:
    """Return the points of all frames that pass the options. Deterministic for equal seeds."""
    threshold = confidence_threshold(result, options, seed)
    reservoir = Reservoir(options.max_points, seed)
    of_frame = partial(_point_rows, options=options, threshold=threshold)
    for position, rows in result.mapped("points", of_frame, options.positions(result)):
        rows["frame_index"] = position
        reservoir.add(rows)
    rows = reservoir.sample()
    return PointCloud(*(np.ascontiguousarray(rows[name]) for name in POINT_DTYPE.names))


def _candidate_conf(frame: ResultFrame, options: ExportOptions) -> np.ndarray:
    """Return the confidences of the candidates of a frame. (N,)"""
    _, conf = frame.predicted(options.point_source)
    return conf[options.candidate_mask(frame)]


def _point_rows(frame: ResultFrame, options: ExportOptions, threshold: float) -> np.ndarray:
    """Return the points of a frame that pass the options, of `POINT_DTYPE` without `frame_index`. (N,)"""
    points, conf = frame.world_points(options.point_source)
    y, x = np.nonzero(options.candidate_mask(frame) & (conf >= threshold))
    rows = np.empty(len(x), POINT_DTYPE)
    rows["point"], rows["color"], rows["conf"] = points[y, x], frame.image[y, x], conf[y, x]
    rows["pixel"] = np.stack([x, y], -1)
    return rows
