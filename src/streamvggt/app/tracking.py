"""Points that a user selects in the first image, and their tracks."""

from dataclasses import dataclass

import numpy as np
import torch

from streamvggt.export import ResultFrame
from streamvggt.frame import Frame
from streamvggt.prediction import Prediction

MAX_POINTS = 64


@dataclass(frozen=True)
class Track:
    """A tracked point in one frame.

    Attributes:
        x: Column in pixels of the processed image.
        y: Row in pixels of the processed image.
        visible: Probability that the point is visible.
        world: World point. None if unknown.
    """

    x: float
    y: float
    visible: float
    world: tuple[float, float, float] | None


def checked_queries(queries: np.ndarray) -> np.ndarray:
    """Return the points of a user, (x, y), limited to [0, 1] of the first image's width and height. (K, 2)

    Raises:
        ValueError: If they are no points, or too many.
    """
    if queries.ndim != 2 or queries.shape[1] != 2 or len(queries) > MAX_POINTS or not np.isfinite(queries).all():
        raise ValueError(f"Points: expected at most {MAX_POINTS} pairs of finite numbers.")
    return queries.clip(0, 1)


def query_pixels(queries: np.ndarray, frame: Frame) -> torch.Tensor:
    """Return the points of `checked_queries` in pixels of the processed first frame. (K, 2)"""
    height, width = frame.original.shape[:2]
    original = queries * (width, height) - 0.5
    homogeneous = np.concatenate([original, np.ones((len(original), 1))], 1)
    pixels = (homogeneous @ np.linalg.inv(frame.original_from_image).T)[:, :2]
    return torch.from_numpy(pixels).float()


def get_tracks(frame: ResultFrame, prediction: Prediction) -> list[Track]:
    """Return image position and world position of the tracked points in a frame."""
    if prediction.tracks is None:
        return []
    height, width = frame.image.shape[:2]
    points, _ = frame.world_points("depth")
    usable = frame.valid_mask("depth")
    tracks = []
    for (x, y), visible in zip(prediction.tracks[0, 0].tolist(), prediction.visibility[0, 0].tolist(), strict=True):
        column, row = round(x), round(y)
        is_inside = 0 <= column < width and 0 <= row < height and usable[row, column]
        tracks.append(Track(x, y, visible, tuple(points[row, column].tolist()) if is_inside else None))
    return tracks
