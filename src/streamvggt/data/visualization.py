"""Figures of views: image, depth, and agreement of two views. Figures are (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from streamvggt.data.consistency import agreeing_pixels
from streamvggt.data.transforms import image_array
from streamvggt.data.view import View

GAP = 4
TEXT_HEIGHT = 18
UNKNOWN, SKY = (40, 40, 40), (150, 190, 230)
AGREES, DISAGREES = (60, 190, 90), (220, 60, 50)


def depth_figure(view: View) -> np.ndarray:
    """Map depth to colors in the range of the view: near is red, far is blue, unknown is dark, sky is pale blue."""
    picture = np.empty((*view.depth.shape, 3), np.uint8)
    picture[:] = UNKNOWN
    picture[view.sky.numpy()] = SKY
    if view.valid.any():
        nearness = 1 / view.depth[view.valid]
        low, high = np.percentile(nearness.numpy(), [2, 98])
        level = ((nearness - low) / max(high - low, 1e-12)).clamp(0, 1) * 255
        colors = cv2.applyColorMap(level.byte().numpy()[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
        picture[view.valid.numpy()] = colors
    return _dilate_points(picture, view)


def consistency_image(first: View, second: View) -> np.ndarray:
    """Draw the first view in gray, with green where the second view agrees in position and depth, and red elsewhere."""
    landed, good = agreeing_pixels(first, second)
    picture = image_array(first.image.mean(0, keepdim=True).expand(3, -1, -1) * 0.6)
    for where, color in ((landed & ~good, DISAGREES), (good, AGREES)):
        picture[where.numpy()] = picture[where.numpy()] // 2 + np.array(color, np.uint8) // 2
    return picture


def image_grid(rows: Sequence[tuple[str, Sequence[np.ndarray]]], height: int = 120) -> np.ndarray:
    """Arrange rows of images of one height below their titles, in columns that make the figure about square."""
    font = ImageFont.load_default(12)
    lines = [(title, _hstack([_resize_to_height(picture, height) for picture in pictures])) for title, pictures in rows]
    width = max(max(line.shape[1], round(font.getlength(title)) + 2 * GAP) for title, line in lines)
    step = height + TEXT_HEIGHT + GAP
    num_columns = max(round((len(lines) * step / width) ** 0.5), 1)
    per_column = -(-len(lines) // num_columns)
    whole = Image.new("RGB", (width * num_columns, step * per_column), "white")
    draw = ImageDraw.Draw(whole)
    for number, (title, line) in enumerate(lines):
        column, row = divmod(number, per_column)
        draw.text((column * width + GAP, row * step + 2), title, fill="black", font=font)
        whole.paste(Image.fromarray(line), (column * width, row * step + TEXT_HEIGHT))
    return np.asarray(whole)


def _hstack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)], 1)


def _resize_to_height(picture: np.ndarray, height: int) -> np.ndarray:
    width = max(round(picture.shape[1] * height / picture.shape[0]), 1)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _dilate_points(picture: np.ndarray, view: View) -> np.ndarray:
    """Enlarge sparse depth points for visibility."""
    share = view.valid.float().mean().item()
    if not 0 < share < 0.1:
        return picture
    size = 3 if torch.tensor(view.depth.shape).max() < 400 else 5
    valid = view.valid.numpy().astype(np.uint8)
    grown = cv2.dilate(np.where(valid[..., None] > 0, picture, 0), np.ones((size, size), np.uint8))
    return np.where(cv2.dilate(valid, np.ones((size, size), np.uint8))[..., None] > 0, grown, picture)
