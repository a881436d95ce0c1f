"""Frames from anywhere: photos, a video file, a camera, a network stream.

    frames = load_frames("walk.mp4", fps=2)
    for frame in frames:
        ...
    print(frames.skipped)  # what could not be read, and why

One frame is in memory at a time.
"""

import glob
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from streamvggt.stream.images import IMAGE_EXTENSIONS, ImageSource, images_in_folder, images_matching, listed_images
from streamvggt.stream.preprocess import frame_from_array, prepare
from streamvggt.stream.source import FrameSource, Options
from streamvggt.stream.video import URL, VideoSource, WebcamSource

__all__ = ["FrameSource", "frame_from_array", "load_frames", "prepare"]


def load_frames(
    source: str | Path | int | Sequence[str | Path],
    *,
    size: int = 518,
    patch_size: int = 14,
    mode: str = "crop",
    fps: float | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    strict: bool = False,
) -> FrameSource:
    """Frames of whatever `source` is, prepared for the network and read only when asked for.

    Args:
        source: a folder of images or a pattern such as "photos/*.jpg" (both in natural order), a list of images (in
            the order given), one image, a video file, an address (rtsp, rtmp, http, https, udp, tcp) or the number
            of a webcam.
        size, patch_size, mode: see `preprocess.place`.
        fps: of a video or live source, the first frame at or after each tick of this clock, which starts with the
            first frame.
        stride: every n-th image or decoded frame.
        max_frames: take no more than this; an image that cannot be read counts.
        strict: what cannot be read is an error instead of being noted in `skipped`.

    Raises:
        FileNotFoundError: there is nothing at this place.
        ValueError: it holds neither images nor video, or an argument is wrong; while iterating: the size of a video
            changes, nothing at all can be read, or with `strict` something cannot.
        ConnectionError: a webcam or address does not answer.
    """
    options = Options(size, patch_size, mode, fps, stride, max_frames, strict)
    if isinstance(source, Integral):
        return WebcamSource(int(source), options)
    if not isinstance(source, str | Path):
        return ImageSource(listed_images(source), options)

    if URL.match(str(source)):
        return VideoSource(str(source), options)
    path = Path(source).expanduser()
    if path.is_dir():
        return ImageSource(images_in_folder(path), options)
    if path.is_file():
        if path.suffix.lower() in (".heic", ".heif"):  # FFmpeg would take one of its tiles for the picture
            raise ValueError(f"{path.name}: HEIC images cannot be read; convert them to JPEG")
        is_image = path.suffix.lower() in IMAGE_EXTENSIONS
        return ImageSource([path], options) if is_image else VideoSource(str(path.absolute()), options)
    if str(source).isdecimal():
        return WebcamSource(int(source), options)
    if glob.has_magic(str(path)):
        return ImageSource(images_matching(str(path)), options)
    raise FileNotFoundError(f"No folder, image, video, address or webcam at {source}")
