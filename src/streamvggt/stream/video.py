"""Read frames from videos and network streams."""

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData

from streamvggt.frame import Frame
from streamvggt.stream.containers import FFMPEG_FORMATS
from streamvggt.stream.preprocess import compute_placement, frame_from_array
from streamvggt.stream.read_ahead import read_ahead
from streamvggt.stream.source import FrameOptions, FrameSource

URL = re.compile(r"(rtsp|rtmp|https?|udp|tcp)://", re.IGNORECASE)
TIMEOUT = 10.0  # seconds to wait for a network stream
PIXEL_ASPECTS = Fraction(1, 4), Fraction(4)  # of cameras and discs; others indicate damage and need unbounded memory
CLOCK_STEP = Fraction(1, 1000)  # tolerance, because Matroska and FLV round times to milliseconds


class TimedFrameSource(FrameSource):
    """Base class of videos and cameras: selects frames by time or number, on the canvas of the first frame."""

    @abstractmethod
    def _decode_frames(self) -> Iterator[tuple[Fraction | float, object]]:
        """Yield each decoded frame with its time in seconds since the first frame."""

    @abstractmethod
    def _rgb(self, picture: object) -> np.ndarray:
        """Return upright pixels, uint8. (H0, W0, 3)"""

    def __iter__(self) -> Generator[Frame, None, None]:
        self.skipped.clear()
        tasks = self._tasks()
        # A live frame that waits for its turn is out of date.
        frames = (task() for task in tasks) if self.kind == "live" else read_ahead(tasks)
        with closing(tasks), closing(frames):
            yield from frames

    def _tasks(self) -> Generator[Callable[[], Frame], None, None]:
        """Decode the video. Yield one function per selected frame that prepares the frame."""
        fps = None if self.options.fps is None else Fraction(self.options.fps).limit_denominator(10_000)
        canvas_size = None
        last_tick = -1
        num_chosen = 0
        with closing(self._decode_frames()) as pictures:
            for index, (seconds, picture) in enumerate(pictures):
                tick = index // self.options.stride if fps is None else math.floor((seconds + CLOCK_STEP) * fps)
                if tick <= last_tick:
                    continue
                last_tick = tick
                num_chosen += 1
                if canvas_size is None:
                    size = self._rgb(picture).shape[1::-1]
                    canvas_size = compute_placement(size, **self.options.placement_options).canvas_size
                if index >= self.start:
                    yield partial(self._prepared, picture, canvas_size, index, float(seconds))
                if num_chosen == self.options.max_frames:
                    return

    def _prepared(self, picture: object, canvas_size: tuple[int, int], index: int, seconds: float) -> Frame:
        return frame_from_array(
            self._rgb(picture), **self.options.preprocess_options, canvas_size=canvas_size, index=index, time=seconds
        )


class VideoSource(TimedFrameSource):
    """A video file, or the URL of a file or stream, decoded with FFmpeg.

    Damaged frames are skipped. If the header contains the length, a missing end is detected.
    """

    def __init__(self, location: str, options: FrameOptions) -> None:
        super().__init__(options)
        location = URL.sub(lambda scheme: scheme[0].lower(), location, count=1)  # FFmpeg rejects upper case
        self.location = location
        if not URL.match(location):
            self.files = [Path(location)]
        address = URL.match(location)
        self.name = re.sub(r"//[^/]*@", "//", location) if address else Path(location).name  # without password
        self.kind = "live" if address else "video"
        self._num_pictures = self._seconds = self._pixel_aspect = None
        scheme = address[1].lower() if address else "file"
        if scheme in ("udp", "tcp"):
            return  # the sender may accept only one connection, which the iteration needs
        with self._open() as container:
            stream = self._stream(container)
            if scheme in ("http", "https") and container.duration:
                self.kind = "video"
            if self.kind == "video":
                start = max((stream.start_time or 0) * stream.time_base, Fraction(0))
                tagged = _tagged_end(stream)
                self._seconds = (
                    (float(tagged - start) if tagged is not None and tagged > start else _stream_seconds(stream))
                    or (container.duration or 0) / av.time_base
                    or None
                )
                self._num_pictures = stream.frames or round((self._seconds or 0) * _frame_rate(stream)) or None

    @property
    def num_frames(self) -> int | None:
        options = self.options
        if self._num_pictures is None:
            return options.max_frames if self.kind == "live" else None
        step = options.stride
        if options.fps is not None and self._seconds is not None:
            step = max(self._num_pictures / (self._seconds * options.fps), 1)
        num_chosen = math.ceil(self._num_pictures / step)
        num_chosen = min(num_chosen, options.max_frames or num_chosen)
        return max(num_chosen - math.ceil(self.start / step), 0)

    def _open(self) -> av.container.InputContainer:
        is_address = URL.match(self.location)
        options = {"format_whitelist": FFMPEG_FORMATS}
        if self.location.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        elif not is_address:
            options["protocol_whitelist"] = "file"
        try:
            timeout = TIMEOUT if is_address else None
            return av.open(self.location, options=options, timeout=timeout, metadata_errors="replace")
        except av.FFmpegError as error:
            if is_address and not isinstance(error, av.InvalidDataError | av.ArgumentError):  # not a whitelisted format
                raise ConnectionError(f"Could not connect to {self.name}: {_reason(error)}") from error
            raise ValueError(
                f"{self.name} is neither a video FFmpeg can read ({error.strerror}) nor an image"
            ) from error

    def _stream(self, container: av.container.InputContainer) -> av.VideoStream:
        for stream in container.streams.video:
            if not stream.disposition & av.stream.Disposition.attached_pic:  # cover art of music
                return stream
        raise ValueError(f"{self.name} contains no video")

    def _decode_frames(self) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        with self._open() as container:
            stream = self._stream(container)
            self._pixel_aspect = stream.sample_aspect_ratio
            first = clock = None  # stream times of the first frame and of this frame
            num_lost = 0
            for picture in self._decoded(container, stream):
                if picture is None:
                    num_lost += 1
                    total = f" of {stream.frames}" if stream.frames else ""
                    self._record_damage(f"damaged or cut short: {num_lost}{total} frames could not be decoded")
                    continue
                clock = _get_time(picture, stream, after=clock)
                first = clock if first is None else first
                yield clock - first, picture

            if first is None:
                raise ValueError(f"not a single frame of {self.name} could be decoded")
            interval = 1 / _frame_rate(stream)
            seconds, announced = clock - min(first, 0) + interval, _tagged_end(stream)
            if announced is None:
                seconds, announced = clock - first + interval, _stream_seconds(stream)
            if announced and not stream.frames and seconds < announced - max(2 * interval, 0.25):
                self._record_damage(
                    f"damaged or cut short: it ends after {float(seconds):.2f} of {float(announced):.2f} seconds"
                )

    def _decoded(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.VideoFrame | None]:
        """Yield frames in display order. Yield None for each frame that is damaged or missing."""
        num_packets = 0
        for packet in self._packets(container, stream):
            num_packets += packet is not None
            if packet is not None and packet.is_corrupt:
                yield None
                continue
            try:
                pictures = stream.decode(packet)
            except av.FFmpegError:
                pictures = [None]
            for picture in pictures:
                yield None if picture is None or picture.is_corrupt else picture
        for _ in range(stream.frames - num_packets):
            yield None

    def _packets(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet | None]:
        """Yield packets with data, then None, which flushes the decoder."""
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
        except av.FFmpegError as error:
            self._record_damage(f"broke off: {_reason(error)}")
        yield None

    def _record_damage(self, reason: str) -> None:
        """Record all damage of a video in one entry."""
        if self.options.strict:
            raise ValueError(f"{self.name}: {reason}")
        self.skipped[:] = [(self.name, reason)]

    def _rgb(self, picture: av.VideoFrame) -> np.ndarray:
        matrix = picture.side_data.get(SideData.DISPLAYMATRIX)
        width, height = _shown_size(picture, self._pixel_aspect)
        pixels = picture.to_ndarray(format="rgb24", width=width, height=height)
        return pixels if matrix is None else apply_display_matrix(pixels, np.frombuffer(matrix, np.int32).reshape(3, 3))


def _shown_size(picture: av.VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Return width and height with square pixels, without reducing the resolution.

    Args:
        picture: Decoded frame.
        aspect: Pixel aspect ratio, width / height.
    """
    if not aspect or not PIXEL_ASPECTS[0] <= aspect <= PIXEL_ASPECTS[1]:
        return picture.width, picture.height
    return (
        (round(picture.width * aspect), picture.height)
        if aspect > 1
        else (picture.width, round(picture.height / aspect))
    )


def _reason(error: av.FFmpegError) -> str:
    return f"no answer in {TIMEOUT:.0f} s" if isinstance(error, av.ExitError) else error.strerror


def _get_time(picture: av.VideoFrame, stream: av.VideoStream, after: Fraction | None) -> Fraction:
    """Return the time on the stream's clock. Missing or non-increasing times, as in AVI, use the frame rate."""
    seconds = Fraction(0) if picture.pts is None else picture.pts * stream.time_base
    return seconds if after is None or seconds > after else after + 1 / _frame_rate(stream)


def _frame_rate(stream: av.VideoStream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def _stream_seconds(stream: av.VideoStream) -> Fraction | None:
    """Return the length of the stream from its first frame in seconds, according to the header."""
    return stream.duration * stream.time_base if stream.duration else None


def _tagged_end(stream: av.VideoStream) -> Fraction | None:
    """Return the end of the stream on the file's clock from the Matroska tag, for example "00:01:02.500000000"."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3]) if tag else None


def apply_display_matrix(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate and mirror pixels by a display matrix, which stores the camera orientation in FFmpeg and MP4.

    Args:
        pixels: (H, W, 3)
        matrix: Maps row vectors (x, y, 1) to the screen. Only quarter turns and mirroring of the upper left 2×2 block
            are used. (3, 3)
    """
    (x_from_x, y_from_x), (x_from_y, y_from_y) = np.sign(matrix[:2, :2])
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):
        pixels, x_direction, y_direction = pixels.swapaxes(0, 1), x_from_y, y_from_x
    else:
        x_direction, y_direction = x_from_x, y_from_y
    return pixels[:: int(y_direction) or 1, :: int(x_direction) or 1]
