"""Say when the bundled weights cannot work: they were trained on the procedural world alone."""

from __future__ import annotations

from pathlib import Path

import av
from PIL import Image

from streamvggt.model.weights_path import BUNDLED_MODELS
from streamvggt.provenance import PROCEDURAL_MARK
from streamvggt.stream.containers import FFMPEG_FORMATS

BUNDLED_WEIGHTS_NOTE = (
    "The bundled weights know rendered rooms only, so cameras and depth of this input are not meaningful: for photos "
    "and videos use --weights lch01/StreamVGGT (5 GB download, runs on a GPU with 8 GB or a CPU with 16 GB of memory)."
)


def bundled_weights_note(weights: str, source: str | Path) -> str | None:
    """Return `BUNDLED_WEIGHTS_NOTE` if the weights do not fit the input, else None.

    Args:
        weights: Name of the weights, as for `load_model`.
        source: Input, as for `load_frames`. Only videos and photos with `PROCEDURAL_MARK` fit the bundled weights.
            Re-encoding a video with FFmpeg keeps the mark.
    """
    return BUNDLED_WEIGHTS_NOTE if weights in BUNDLED_MODELS and not is_procedural(source) else None


def is_procedural(source: str | Path) -> bool:
    """Whether the input is a video of the procedural world, or a folder of its photos.

    Cameras, URLs, patterns and unreadable files are not.
    """
    path = Path(source)
    if path.is_dir():
        photos = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        return bool(photos) and all(_comment(photo) == PROCEDURAL_MARK for photo in photos)
    return path.is_file() and _comment(path) == PROCEDURAL_MARK


def _comment(path: Path) -> str | None:
    """Return the comment in the header of a JPEG or video."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            comment = image.info.get("comment", b"")
            return comment.decode("ascii", "ignore") if isinstance(comment, bytes) else str(comment)
    except Exception:  # no JPEG; Pillow's readers raise anything
        pass
    try:
        with av.open(str(path), options={"format_whitelist": FFMPEG_FORMATS, "protocol_whitelist": "file"}) as video:
            return video.metadata.get("comment")
    except (av.FFmpegError, OSError, ValueError):
        return None
