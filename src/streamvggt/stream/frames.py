"""Load frames from images, a video file, a camera or a network stream.

    frames = load_frames("walk.mp4", fps=2)
    for frame in frames:
        ...
    print(frames.skipped)  # names and reasons of unreadable files

Threads read and prepare a few frames ahead of the iteration. Other frames are not in memory.
"""

import glob
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from streamvggt.file_kinds import printable, unreadable_image, what_it_is
from streamvggt.image_files import image_format
from streamvggt.stream.containers import video_suffix
from streamvggt.stream.image_list import ImageList, find_images, further_in, images_in_folder, images_matching
from streamvggt.stream.images import ImageSource
from streamvggt.stream.preprocess import frame_from_array, preprocess_image
from streamvggt.stream.source import FrameOptions, FrameSource
from streamvggt.stream.video import URL, VideoSource
from streamvggt.stream.webcam import WebcamSource

__all__ = ["FrameSource", "frame_from_array", "load_frames", "preprocess_image"]


def load_frames(
    source: str | Path | int | Sequence[str | Path],
    *,
    size: int = 518,
    patch_size: int = 14,
    mode: str = "crop",
    fast_resize: bool = False,
    fps: float | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    strict: bool = False,
) -> FrameSource:
    """Open a source of frames. Frames are read and preprocessed during iteration.

    Args:
        source: A folder of images or a pattern such as "photos/*.jpg" (both sorted by the numbers in the names), a
            list of images (in the given order), one image, a video file, a URL (rtsp, rtmp, http, https, udp, tcp,
            file) or a webcam number. The file content determines the type. Every image of an animation or multi-page
            file is a frame.
        size: Target size in pixels, see `preprocess.compute_placement`.
        patch_size: Patch size of the model in pixels.
        mode: "crop" or "pad", see `preprocess.compute_placement`.
        fast_resize: Resize in a fifth of the time. Single pixels differ by 1/255 from the reference implementation.
        fps: Frames per second to take from a video or live source. Takes the first frame at or after each tick of a
            clock that starts with the first frame.
        stride: Take every n-th image or decoded frame.
        max_frames: Maximum number of frames. Unreadable images count.
        strict: Raise an error for each unreadable or ignored file instead of recording it in `skipped`.

    Returns:
        An iterable source of frames.

    Raises:
        FileNotFoundError: If `source` does not exist.
        ValueError: If `source` contains neither images nor video, or an argument is invalid. During iteration: if
            nothing can be read, or with `strict`, if a file cannot be read.
        ConnectionError: If a webcam or URL does not respond.
    """
    options = FrameOptions(size, patch_size, mode, fast_resize, fps, stride, max_frames, strict)
    if isinstance(source, Integral):
        return WebcamSource(int(source), options)
    if not isinstance(source, str | Path):
        return ImageSource(find_images(source), options)

    if URL.match(str(source)):
        return VideoSource(str(source), options)
    path = Path(_without_file_scheme(str(source))).expanduser()
    if path.is_dir():
        return ImageSource(images_in_folder(path), options)
    if path.is_file():
        return _one_file(path, options)
    if str(source).isdecimal():
        return WebcamSource(int(source), options)
    if glob.has_magic(str(path)):
        return ImageSource(images_matching(str(path)), options)
    raise FileNotFoundError(f"No folder, image, video, address or webcam at {source}")


def _without_file_scheme(source: str) -> str:
    """Convert a URL such as "file:///home/me/my%20clip.mp4" to a path. Return other sources unchanged."""
    address = urlsplit(source) if source.lower().startswith("file:") else None
    return url2pathname(address.path) if address and address.netloc in ("", "localhost") else source


def _one_file(path: Path, options: FrameOptions) -> FrameSource:
    """Open an image or video by its content."""
    if reason := unreadable_image(path):
        raise ValueError(f"{printable(path)}: {reason}")
    if image_format(path):
        return ImageSource(ImageList([path], further_in([path])), options)
    if video_suffix(path):
        return VideoSource(str(path.absolute()), options)
    raise ValueError(f"{printable(path)} is neither a video nor an image that can be read: {what_it_is(path)}")
