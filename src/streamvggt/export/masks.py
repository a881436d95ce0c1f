"""Read the user's masks: gray images by frame name, 0 where the frame is left out of point clouds and exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from streamvggt.export.result_frame import FrameCamera, ResultFrame

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class MaskFolder:
    """Masks of the frames of a result.

    The mask of frame "IMG_1" is IMG_1.png or, as in COLMAP, IMG_1.jpg.png. It may have another size than the frame, but
    has the same aspect ratio.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise FileNotFoundError(f"--masks: expected a folder, got {folder}")
        self.folder = folder
        self._paths: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES:
                inner = Path(path.stem)
                self._paths[inner.stem if inner.suffix.lower() in SUFFIXES else path.stem] = path

    def check(self, frames: Sequence[FrameCamera]) -> None:
        """Raise `FileNotFoundError` if a frame has no mask."""
        missing = [frame.name for frame in frames if frame.name not in self._paths]
        if missing:
            raise FileNotFoundError(
                f"--masks {self.folder}: expected a mask for every frame, got none for {len(missing)} of "
                f"{len(frames)}; the first: {missing[0]}.png. Add the masks; a white mask keeps all pixels."
            )

    def valid_mask(self, frame: ResultFrame) -> np.ndarray:
        """Return the valid pixels of a frame whose mask is above 0. Bool. (H, W)

        Raises:
            ValueError: If the mask cannot be read or has another aspect ratio.
        """
        mask = self.read(frame)
        height, width = frame.image.shape[:2]
        K = frame.original_from_image
        # The corner of the image is (0, 0) here, because the mask has another size than the original.
        x = (K[0, 0] * np.arange(width) + K[0, 2] + 0.5) / frame.original_size[1] * mask.shape[1]
        y = (K[1, 1] * np.arange(height) + K[1, 2] + 0.5) / frame.original_size[0] * mask.shape[0]
        rows, columns = (v.astype(int).clip(0, n - 1) for v, n in zip((y, x), mask.shape, strict=True))
        keeps = mask[rows[:, None], columns] > 0
        return keeps if frame.valid is None else keeps & frame.valid

    def read(self, frame: FrameCamera) -> np.ndarray:
        """Return the mask of a frame, uint8, of its own size. (H', W')"""
        path = self._paths[frame.name]
        content = np.frombuffer(path.read_bytes(), np.uint8)
        mask = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if len(content) else None
        if mask is None:
            raise ValueError(f"--masks: expected an image, got {path}, which cannot be read")
        height, width = frame.original_size
        if abs(mask.shape[1] * height - mask.shape[0] * width) > 0.02 * mask.shape[0] * width:
            raise ValueError(
                f"--masks: expected the aspect ratio of {width}×{height}, got {path} with "
                f"{mask.shape[1]}×{mask.shape[0]}"
            )
        return mask
