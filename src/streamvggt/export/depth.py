"""Export depth maps as 16-bit images with one scale, and as arrays."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from streamvggt.export.check import image_problem
from streamvggt.export.options import ExportOptions
from streamvggt.export.points import NothingLeft
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import ResultFrame
from streamvggt.export.upsampling import nearest_pixels, upsample_depth
from streamvggt.files import atomic_directory


def export_depth(result: ReconstructionResult, folder: Path, options: ExportOptions) -> Path:
    """Write `depth/` with the depth of all frames. The options that select points do not apply.

    scale.json: {"scale": s}. Depth = value·s in scene units, with equal s for all frames.
    <name>.png: 16-bit; 0 marks missing depth. (H, W)
    <name>.npz: depth and conf (H, W), 0 marks missing depth; intrinsics (3, 3), cam_from_world (3, 4).

    H×W is the processed image, or the original with `options.full_resolution`, see `streamvggt.export.upsampling`.

    Raises:
        NothingLeft: If no frame has depth. Nothing is written.
        FileNotFoundError: If an original image is missing or damaged, with `options.full_resolution`.
    """
    largest = max(largest for _, largest in result.mapped("depth range", lambda frame: usable_depth(frame).max()))
    if largest == 0:
        raise NothingLeft("no frame has a depth that is positive and finite. depth/ is not written")
    scale = float(largest) / 65535
    with atomic_directory(folder / "depth", marker="scale.json") as temporary:
        (temporary / "scale.json").write_text(json.dumps({"scale": scale}) + "\n", encoding="utf-8")

        def write(frame: ResultFrame) -> None:
            arrays = original_maps(result.folder, frame) if options.full_resolution else processed_maps(frame)
            picture = quantize(arrays["depth"], scale)
            (temporary / f"{frame.name}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
            np.savez(temporary / f"{frame.name}.npz", **arrays, cam_from_world=frame.cam_from_world)

        for _ in result.mapped("depth", write):
            pass
    return folder / "depth"


def processed_maps(frame: ResultFrame) -> dict[str, np.ndarray]:
    """Return depth and conf of the processed image (H, W), and its intrinsics (3, 3)."""
    depth = usable_depth(frame)
    return {"depth": depth, "conf": np.where(depth > 0, frame.depth_conf, 0), "intrinsics": frame.intrinsics}


def original_maps(folder: Path, frame: ResultFrame) -> dict[str, np.ndarray]:
    """Return depth and conf of the original image (H0, W0), and its intrinsics (3, 3).

    Raises:
        FileNotFoundError: If the image is missing or damaged.
    """
    if problem := image_problem(folder, frame):
        raise FileNotFoundError(f"--full-resolution: {problem}")
    with Image.open(folder / "images" / f"{frame.name}.jpg") as file:
        original = np.asarray(file.convert("RGB"))
    usable = frame.valid_mask("depth")
    depth = upsample_depth(frame.depth, usable, frame.image, original, frame.original_from_image)
    nearest = nearest_pixels(frame.original_size, frame.depth_conf.shape, frame.original_from_image)
    conf = np.where(depth > 0, frame.depth_conf[np.ix_(*nearest)], 0)
    return {"depth": depth, "conf": conf, "intrinsics": frame.original_intrinsics}


def usable_depth(frame: ResultFrame) -> np.ndarray:
    """Return the depth, 0 where it is missing. (H, W)"""
    depth, _ = frame.predicted("depth")
    return np.where(frame.valid_mask("depth"), depth, 0)


def quantize(depth: np.ndarray, scale: float) -> np.ndarray:
    """Quantize depth in steps of `scale` to uint16. Positive depth stays positive; 0 marks missing depth. (H, W)"""
    steps = np.round(depth.astype(np.float64) / scale).clip(0, 65535).astype(np.uint16)
    return np.where(depth > 0, np.maximum(steps, 1), 0)
