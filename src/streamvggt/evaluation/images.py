"""Preprocess images as the published evaluations do.

For depth and trajectories the longer side is resized to `size`. Then a second, slightly anisotropic resize or a crop
reduces each side to a multiple of the patch size. `load_frames` differs: 640×480 becomes 518×378 here and 518×392
there.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from streamvggt.image_files import exif_rgb, open_image
from streamvggt.stream.frames import load_frames


def load_image(path: Path, size: int = 518, *, patch_size: int = 14, crop: bool = False) -> Tensor:
    """Load one image as RGB in [0, 1]. (3, H, W)

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the image cannot be read, or is narrower than a patch.
    """
    try:
        with open_image(path) as file:
            image = exif_rgb(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's readers raise anything
        raise ValueError(f"{path} cannot be read as an image ({error}): get it again") from error
    first, last = fitted_sizes(image.size, size, patch_size)
    if not all(last):
        raise ValueError(
            f"{path} is {image.width}×{image.height}: too narrow, a side is below one patch at size {size}"
        )
    shrinks = max(image.size) > size
    image = image.resize(first, Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC)
    if crop:
        left, top = ((side - kept) // 2 for side, kept in zip(first, last, strict=True))
        image = image.crop((left, top, left + last[0], top + last[1]))
    else:
        image = image.resize(last, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 255


def fitted_sizes(
    original_size: tuple[int, int], size: int = 518, patch_size: int = 14
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return width and height after the first resize and at the end."""
    first = tuple(round(side * size / max(original_size)) for side in original_size)
    last = tuple(side // patch_size * patch_size for side in first)
    return first, last


def load_images(paths: Sequence[Path], loader: str, size: int, patch_size: int) -> Tensor:
    """Load images of CO3Dv2 as RGB in [0, 1] with equal sizes. (S, 3, H, W)

    Args:
        paths: Image files.
        loader: "crop": width `size`, height cropped to `size`. Otherwise: size × size, distorted.
        size: Size in pixels.
        patch_size: Patch size in pixels.

    Raises:
        FileNotFoundError: If an image does not exist.
        ValueError: If an image is damaged.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} images are missing, the first is {missing[0]}")
    if loader == "crop":
        frames = load_frames(paths, size=size, patch_size=patch_size, mode="crop", strict=True)
        return torch.stack([frame.image for frame in frames])
    pixels = []
    for path in paths:
        with open_image(path) as file:
            squeezed = exif_rgb(file).resize((size, size), Image.Resampling.BICUBIC)
        pixels.append(torch.from_numpy(np.array(squeezed)).movedim(-1, 0).float() / 255)
    return torch.stack(pixels)
