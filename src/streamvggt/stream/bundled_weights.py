"""Say when the bundled weights cannot work: they were trained on the procedural world alone."""

from __future__ import annotations

from pathlib import Path

import av

from streamvggt.model.weights import BUNDLED_MODELS
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
        source: Input, as for `load_frames`. Of all inputs, only videos with `PROCEDURAL_MARK` fit the bundled weights.
            Re-encoding a video with FFmpeg keeps the mark.
    """
    return BUNDLED_WEIGHTS_NOTE if weights in BUNDLED_MODELS and not is_procedural(source) else None


def is_procedural(source: str | Path) -> bool:
    """Whether a file is a video of the procedural world. Folders, cameras, URLs and unreadable files are not."""
    path = Path(source)
    if not path.is_file():
        return False
    try:
        with av.open(str(path), options={"format_whitelist": FFMPEG_FORMATS, "protocol_whitelist": "file"}) as video:
            return video.metadata.get("comment") == PROCEDURAL_MARK
    except (av.FFmpegError, OSError, ValueError):
        return False
