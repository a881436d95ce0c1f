"""Verify a result folder before it is exported or resumed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from streamvggt.export.frame_file import DamagedResult, load_frame
from streamvggt.export.result import ReconstructionResult
from streamvggt.export.result_frame import FrameCamera, ResultFrame

HEADS = ("depth", "depth_conf", "points", "points_conf")
END_OF_JPEG = b"\xff\xd9"


def check_result(result: ReconstructionResult) -> list[str]:
    """Read every frame of a result completely.

    Returns:
        One message for each original image that is missing or damaged.

    Raises:
        DamagedResult: As for `checked_frames`.
    """
    problems = (image_problem(result.folder, frame) for frame in checked_frames(result.paths))
    return [problem for problem in problems if problem]


def checked_frames(paths: Sequence[Path]) -> Iterator[ResultFrame]:
    """Read the frames of a result completely, one by one, and compare each with the frames before.

    Raises:
        DamagedResult: If a frame file is damaged, has other heads or another size than the first one, or has the name
            of an earlier frame.
    """
    first, names = None, {}
    for path in tqdm(paths, desc="check", unit="frame", disable=None, leave=False):
        frame = load_frame(path, ResultFrame)
        kind = frame.image.shape[:2], (*(name for name in HEADS if getattr(frame, name) is not None), *frame.extra)
        first = first or kind
        if kind != first:
            raise DamagedResult(
                f"{path}: expected image size and heads as in {paths[0].name}, {first}, got {kind}. Remove it and the "
                "frames after it, and continue with --resume"
            )
        if frame.name in names:
            raise DamagedResult(
                f"{path}: expected a name of its own, got {frame.name!r} as in {names[frame.name]}. Remove it and the "
                "frames after it, and continue with --resume"
            )
        names[frame.name] = path.name
        yield frame


def image_problem(folder: Path, frame: FrameCamera) -> str | None:
    """Check the original image of a frame by its header and its end. Return the problem or None."""
    path = folder / "images" / f"{frame.name}.jpg"
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            size = image.size[::-1]
        with open(path, "rb") as file:
            file.seek(-len(END_OF_JPEG), os.SEEK_END)
            is_whole = file.read() == END_OF_JPEG
    except FileNotFoundError:
        return f"{path} is missing"
    except Exception as error:  # Pillow's readers raise anything
        return f"{path} is damaged ({str(error) or type(error).__name__})"
    if size != frame.original_size or not is_whole:
        return f"{path} is damaged (expected {frame.original_size} pixels and an end, got {size})"
    return None
