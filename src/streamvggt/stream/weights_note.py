"""Warnings about weights that cannot reconstruct an input."""

from __future__ import annotations

from pathlib import Path

import av
from PIL import Image

from streamvggt.model.random_networks import is_random
from streamvggt.model.weights_path import BUNDLED_MODELS
from streamvggt.provenance import PROCEDURAL_MARK
from streamvggt.stream.containers import FFMPEG_FORMATS

RANDOM_WEIGHTS_NOTE = "Random weights: the result has no meaning. Use trained weights (ckpt/README.md)."
BUNDLED_WEIGHTS_NOTE = (
    "The bundled weights are trained on rendered scenes only. Cameras and depth of other scenes are not meaningful. "
    "For photos and videos, use lch01/StreamVGGT (5 GB download, GPU with 6 GB or CPU with 16 GB of memory)."
)


def weights_note(weights: str, source: str | Path | None = None) -> str:
    """Return a warning if weights cannot reconstruct an input, else "".

    Args:
        weights: Name of the weights, as for `load_model`.
        source: Input, as for `load_frames`. Only videos and photos with `PROCEDURAL_MARK` fit the bundled weights.
            Re-encoding a video with FFmpeg keeps the mark. None: any photos of a user.
    """
    if is_random(weights):
        return RANDOM_WEIGHTS_NOTE
    fits = weights not in BUNDLED_MODELS or (source is not None and is_procedural(source))
    return "" if fits else BUNDLED_WEIGHTS_NOTE


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
