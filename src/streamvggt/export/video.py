"""Export a preview clip: image, depth and confidence side by side."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import av
import cv2
import numpy as np

from streamvggt.export.options import ExportOptions
from streamvggt.export.points import NothingLeft, Reservoir
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import ResultFrame
from streamvggt.files import atomic_write

RANGE_SAMPLE = 1_000_000
"""Number of sampled pixels for the color ranges."""


def export_video(result: ReconstructionResult, folder: Path, options: ExportOptions) -> Path:
    """Write `preview.mp4` of all frames in H.264. The options do not apply.

    Raises:
        NothingLeft: If no frame has depth. The clip then shows only the images.
    """
    ranges = color_ranges(result)
    has_depth = False
    path = folder / "preview.mp4"
    options = {"movflags": "faststart"}  # write the index first, so that playback starts early
    with atomic_write(path) as temporary, av.open(temporary, "w", options=options) as container:
        stream = container.add_stream("libx264", rate=frame_rate(result), options={"crf": "18", "preset": "veryfast"})
        height, width = result[0].image.shape[:2]
        stream.height, stream.width = height // 2 * 2, 3 * width // 2 * 2  # yuv420p needs even sizes
        stream.pix_fmt = "yuv420p"
        for _, (picture, is_usable) in result.mapped("video", partial(_picture, ranges=ranges)):
            has_depth |= is_usable
            picture = picture[: stream.height, : stream.width]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    if not has_depth:
        raise NothingLeft("no frame has a depth that is positive and finite. preview.mp4 shows only the images", path)
    return path


@dataclass(frozen=True)
class ColorRanges:
    """Value ranges of the color maps, constant over the clip to avoid flicker.

    Attributes:
        inverse_depth: Minimum and maximum inverse depth.
        conf: Minimum and maximum log confidence.
    """

    inverse_depth: tuple[float, float]
    conf: tuple[float, float]


def color_ranges(result: ReconstructionResult) -> ColorRanges:
    """Return the range between the 2nd and 98th percentile of the clip."""
    reservoir = Reservoir(RANGE_SAMPLE)
    for _, pairs in result.mapped("color range", _colored_values):
        reservoir.add(pairs)
    values = reservoir.sample()
    low, high = np.percentile(values, [2, 98], axis=0) if len(values) else np.array([[0, 0], [1, 1]])
    return ColorRanges((low[0], high[0]), (low[1], high[1]))


def _colored_values(frame: ResultFrame) -> np.ndarray:
    """Return inverse depth and log confidence of the usable pixels. (N, 2)"""
    depth, conf = frame.predicted("depth")
    usable = frame.valid_mask("depth")
    return np.stack([1 / depth[usable], np.log(conf[usable])], -1)


def _picture(frame: ResultFrame, ranges: ColorRanges) -> tuple[np.ndarray, bool]:
    """Return the picture of `side_by_side`, and whether the frame has depth."""
    return side_by_side(frame, ranges), bool(frame.valid_mask("depth").any())


def side_by_side(frame: ResultFrame, ranges: ColorRanges) -> np.ndarray:
    """Concatenate image, depth (red is near) and confidence (bright is high), RGB, uint8. (H, 3W, 3)"""
    depth, conf = frame.predicted("depth")
    usable = frame.valid_mask("depth")
    inverse_depth = np.divide(1, depth, where=usable, out=np.zeros_like(depth))
    certainty = np.log(conf, where=usable, out=np.zeros_like(conf))
    return np.concatenate(
        [
            frame.image,
            colorize(inverse_depth, ranges.inverse_depth, usable, cv2.COLORMAP_TURBO),
            colorize(certainty, ranges.conf, usable, cv2.COLORMAP_INFERNO),
        ],
        axis=1,
    )


def colorize(values: np.ndarray, value_range: tuple[float, float], usable: np.ndarray, colormap: int) -> np.ndarray:
    """Map values to RGB. Unusable pixels and non-finite ranges are black. (H, W) to (H, W, 3)"""
    low, high = value_range
    level = ((values - low) * (255 / max(high - low, 1e-12))).clip(0, 255)
    return color_table(colormap).take(np.where(usable & np.isfinite(level), level, 256).astype(np.intp), 0)


@cache
def color_table(colormap: int) -> np.ndarray:
    """Return RGB of the levels 0 to 255 of an OpenCV color map, followed by black. (257, 3)"""
    levels = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], colormap)[0, :, ::-1]
    return np.concatenate([levels, np.zeros((1, 3), np.uint8)])


def frame_rate(result: ReconstructionResult) -> Fraction:
    """Return frames per second for playback in real time, in [1, 60]. 10 for photos and slower sequences."""
    times = [camera.time for camera in result.cameras()]
    if len(times) < 2 or None in times:
        return Fraction(10)
    step = float(np.median(np.diff(times)))
    return Fraction(min(1 / step, 60) if 0 < step <= 1 else 10).limit_denominator(1001)
