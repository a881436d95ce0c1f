"""Options of all exports, shared by the command line and the page."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from streamvggt.choices import PointSource
from streamvggt.export.adjustments import Adjustments
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import ResultFrame
from streamvggt.export.sky import sky_mask


@dataclass(frozen=True)
class ExportOptions:
    """Selection of points, known facts, and options of single formats.

    Padding, masked pixels, non-finite points and depths ≤ 0 are always excluded.

    Attributes:
        point_source: Points from depth maps and cameras ("depth") or from the point head ("head").
        conf_percentile: Percentage of least confident points to remove after the other filters, in [0, 100].
        frames: Start, stop and step of the stream positions, as of a forward slice.
        drop_white: Remove points with red, green and blue above 240.
        drop_black: Remove points whose sum of red, green and blue is below 16.
        drop_sky: Remove detected sky, see `streamvggt.export.sky`.
        drop_edges: Remove points at depth discontinuities, see `streamvggt.export.edges`.
        max_points: Maximum number of points, sampled uniformly.
        bundle_adjust: Refine the cameras of the COLMAP export, see `streamvggt.export.refined`.
        full_resolution: Write depth maps at the size of the original images.
        adjustments: Known camera, scale and masks. `write_exports` applies them to the result.
    """

    point_source: PointSource = "depth"
    conf_percentile: float = 50.0
    frames: tuple[int | None, int | None, int | None] = (None, None, None)
    drop_white: bool = False
    drop_black: bool = False
    drop_sky: bool = False
    drop_edges: bool = True
    max_points: int = 1_000_000
    bundle_adjust: bool = False
    full_resolution: bool = False
    adjustments: Adjustments = field(default_factory=Adjustments)

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

    def nothing_left(self, what: str = "points") -> str:
        """Return the message that the filters removed all points or triangles, with their flags on the command line."""
        flags = [f"--conf-percentile {self.conf_percentile:g}"]
        if self.frames != (None, None, None):
            flags.append("--frames " + ":".join("" if number is None else str(number) for number in self.frames))
        flags += [f"--drop-{name}" for name in ("white", "black", "sky") if getattr(self, f"drop_{name}")]
        if self.adjustments.masks is not None:
            flags.append(f"--masks {self.adjustments.masks}")
        edges = " and without --no-edge-mask" if self.drop_edges else ""
        return f"no {what} are left with {', '.join(flags)}{edges}: relax them"

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
            mask &= ~white_mask(frame.image)
        if self.drop_black:
            mask &= ~black_mask(frame.image)
        if self.drop_sky:
            mask &= ~sky_mask(frame.image)
        if self.drop_edges:
            mask &= ~frame.edge_mask(self.point_source)
        return mask


def white_mask(image: np.ndarray) -> np.ndarray:
    """Return where an image, RGB uint8 (H, W, 3), is white. Bool. (H, W)"""
    return cv2.inRange(image, (241, 241, 241), (255, 255, 255)) > 0


def black_mask(image: np.ndarray) -> np.ndarray:
    """Return where an image, RGB uint8 (H, W, 3), is black. Bool. (H, W)"""
    return cv2.transform(image, np.ones((1, 3))) < 16  # sums above 255 become 255
