"""Export depth maps as 16-bit images with one scale, and as arrays."""

import json
from pathlib import Path

import cv2
import numpy as np

from streamvggt.export.points import NothingLeft, PointFilter
from streamvggt.export.result import ReconstructionResult, ResultFrame
from streamvggt.files import atomic_directory


def export_depth(result: ReconstructionResult, folder: Path, filter: PointFilter) -> Path:
    """Write `depth/` with the depth of all frames. `filter` is ignored; it applies to points only.

    scale.json: {"scale": s}. Depth = value·s in scene units, with equal s for all frames.
    <name>.png: 16-bit, size of the processed image; 0 marks missing depth. (H, W)
    <name>.npz: depth and conf (H, W), 0 marks missing depth; intrinsics (3, 3), cam_from_world (3, 4).

    Raises:
        NothingLeft: If no frame has depth. Nothing is written.
    """
    largest = max(float(usable_depth(frame).max()) for _, frame in result.frames("depth range"))
    if largest == 0:
        raise NothingLeft("no frame has a depth that is positive and finite. depth/ is not written")
    scale = largest / 65535
    with atomic_directory(folder / "depth", marker="scale.json") as temporary:
        (temporary / "scale.json").write_text(json.dumps({"scale": scale}) + "\n", encoding="utf-8")
        for _, frame in result.frames("depth"):
            depth = usable_depth(frame)
            picture = quantize(depth, scale)
            (temporary / f"{frame.name}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
            np.savez(
                temporary / f"{frame.name}.npz",
                depth=depth,
                conf=np.where(depth > 0, frame.depth_conf, 0),
                intrinsics=frame.intrinsics,
                cam_from_world=frame.cam_from_world,
            )
    return folder / "depth"


def usable_depth(frame: ResultFrame) -> np.ndarray:
    """Return the depth, 0 where it is missing. (H, W)"""
    depth, _ = frame.predicted("depth")
    return np.where(frame.valid_mask("depth"), depth, 0)


def quantize(depth: np.ndarray, scale: float) -> np.ndarray:
    """Quantize depth in steps of `scale` to uint16. Positive depth stays positive; 0 marks missing depth. (H, W)"""
    steps = np.round(depth.astype(np.float64) / scale).clip(0, 65535).astype(np.uint16)
    return np.where(depth > 0, np.maximum(steps, 1), 0)
