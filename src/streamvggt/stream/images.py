"""Read frames from image files: order of the images, names, and decoding in threads."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, count, groupby, islice
from pathlib import Path

from PIL import Image

from streamvggt.file_kinds import printable
from streamvggt.frame import Frame
from streamvggt.image_files import ANIMATIONS, get_pages, get_white_level, is_deep, is_turned, open_image, plain_reason
from streamvggt.names import storable
from streamvggt.natural_order import stem
from streamvggt.stream.capture_time import capture_time, rising_times
from streamvggt.stream.image_list import ImageList, and_more
from streamvggt.stream.jpeg import without_metadata
from streamvggt.stream.preprocess import compute_placement, preprocess_image
from streamvggt.stream.read_ahead import read_ahead
from streamvggt.stream.source import FrameOptions, FrameSource

NUM_WHITE = 5  # images that determine the bit depth of 16-bit files


@dataclass(frozen=True)
class Picture:
    """One image of an image file.

    Attributes:
        page: Index for `Image.seek`.
        size: Upright width and height in pixels. None if the file cannot be opened.
        is_deep: See `image_files.is_deep`.
        time: See `capture_time`. None for images of files with several images.
    """

    path: Path
    page: int
    name: str
    size: tuple[int, int] | None
    is_deep: bool
    time: float | None = None


class ImageSource(FrameSource):
    """Image files in the given order, padded with white to the largest image. Each image of a file is a frame."""

    kind = "images"

    def __init__(self, images: ImageList, options: FrameOptions) -> None:
        super().__init__(options)
        if options.fps is not None:
            raise ValueError("fps: photos have no times. Use stride to take every n-th photo.")
        if options.strict and images.left_out:
            name, reason = images.left_out[0]
            raise ValueError(f"{name}: {reason}" + and_more(len(images.left_out) - 1, "files"))
        self.files = self.paths = images.paths
        self.left_out = images.left_out

    @cached_property
    def _pictures(self) -> dict[int, Picture]:
        """Return the selected images by frame index, from the file headers. Independent of the start index."""
        return dict(islice(enumerate(_find_pictures(self.paths)), None, self._end, self.options.stride))

    @cached_property
    def _times(self) -> dict[int, float | None]:
        """Return the capture times of the selected images by frame index, see `rising_times`."""
        pictures = self._pictures
        return dict(zip(pictures, rising_times([picture.time for picture in pictures.values()]), strict=True))

    @property
    def _end(self) -> int | None:
        options = self.options
        return None if options.max_frames is None else (options.max_frames - 1) * options.stride + 1

    @property
    def num_frames(self) -> int:
        return sum(index >= self.start for index in self._pictures)

    @cached_property
    def _canvas_size(self) -> tuple[int, int] | None:
        """Return the maximum width and height of the selected images."""
        sizes = {picture.size for picture in self._pictures.values() if picture.size}
        canvases = [compute_placement(size, **self.options.placement_options).canvas_size for size in sizes]
        return tuple(map(max, zip(*canvases, strict=True))) if canvases else None

    @cached_property
    def _white(self) -> int:
        """Return the white level of images with more than 8 bits, equal for all images to avoid brightness jumps."""
        deep = [picture for picture in self._pictures.values() if picture.is_deep]
        whites = [0]
        for picture in deep[:: max(len(deep) // NUM_WHITE, 1)]:
            try:
                with open_image(picture.path) as image:
                    image.seek(picture.page)
                    whites.append(get_white_level(image))
            except Exception:  # skipped, and explained, when its turn comes
                continue
        return max(whites)

    def __iter__(self) -> Generator[Frame, None, None]:
        self.skipped[:] = [] if self.start else self.left_out
        chosen = [(index, picture) for index, picture in self._pictures.items() if index >= self.start]
        _ = self._canvas_size, self._white, self._times  # read all headers before the threads need them
        num_read = 0
        with closing(read_ahead(self._tasks(chosen))) as frames:
            for frame in frames:
                if isinstance(frame, _Unreadable):
                    self._skip(frame)
                    continue
                num_read += 1
                yield frame
        if chosen and not num_read and not self.start:  # otherwise earlier frames were read
            name, reason = self.skipped[len(self.left_out)]
            raise ValueError(f"none of {len(chosen)} images could be read; the first, {name}: {reason}")

    def _tasks(self, chosen: list[tuple[int, Picture]]) -> Generator[Callable[[], "Frame | _Unreadable"], None, None]:
        """Yield one function per image that decodes the image. The images of one file are decoded one by one."""
        for path, group in groupby(chosen, key=lambda entry: entry[1].path):
            pictures = list(group)
            if len(pictures) == 1:
                yield partial(self._only_frame, *pictures[0])
            else:
                for frame in self._get_frames(path, pictures):
                    yield partial(_same, frame)

    def _only_frame(self, index: int, picture: Picture) -> "Frame | _Unreadable":
        return next(self._get_frames(picture.path, [(index, picture)]))

    def _get_frames(self, path: Path, pictures: list[tuple[int, Picture]]) -> Iterator["Frame | _Unreadable"]:
        """Yield the frames of one file, opened once, because seeking in an animation decodes all earlier images."""
        try:
            file = open_image(path)
        except Exception as error:  # Pillow's readers raise anything, from SyntaxError to struct.error
            for _, picture in pictures:
                yield _Unreadable(picture, error)
            return
        with file:
            failure = None
            for index, picture in pictures:
                try:
                    if failure is not None:
                        raise failure
                    frame = self._prepared(file, index, picture)
                except Exception as error:
                    if file.format in ANIMATIONS:
                        failure = error
                    yield _Unreadable(picture, error)
                    continue
                yield frame

    def _prepared(self, file: Image.Image, index: int, picture: Picture) -> Frame:
        if picture.page:
            file.seek(picture.page)
        frame = preprocess_image(
            file,
            **self.options.preprocess_options,
            canvas_size=self._canvas_size,
            white=self._white,
            index=index,
            name=picture.name,
        )
        frame = replace(frame, time=self._times[index])
        is_stored = file.format in ("JPEG", "MPO") and file.mode == "RGB" and not picture.page
        if not is_stored or is_turned(file):
            return frame
        return replace(frame, jpeg=without_metadata(picture.path.read_bytes()))

    def _skip(self, unreadable: "_Unreadable") -> None:
        picture, error = unreadable.picture, unreadable.error
        reason = plain_reason(picture.path, error)
        name = printable(picture.path) + (f", picture {picture.page + 1}" if picture.page else "")
        if self.options.strict:
            raise ValueError(f"{name}: {reason}") from error
        self.skipped.append((name, reason))


@dataclass(frozen=True)
class _Unreadable:
    """An image that cannot be read. The iteration skips or raises it at its place."""

    picture: Picture
    error: Exception


def _same(frame: "Frame | _Unreadable") -> "Frame | _Unreadable":
    return frame


def _find_pictures(paths: Sequence[Path]) -> Iterator[Picture]:
    """Yield all images of image files. Reads the headers lazily."""
    stems = {storable(stem(path)) for path in paths}
    names = _Names(stems)
    for path in paths:
        try:
            with open_image(path) as image:
                deep = is_deep(image)
                pages = get_pages(image)
                time = capture_time(image)
        except Exception:  # skipped, and explained, when its turn comes
            pages, deep, time = {0: None}, False, None
        name = names.new(storable(stem(path)))
        if len(pages) == 1:
            ((page, size),) = pages.items()
            yield Picture(path, page, name, size, deep, time)
            continue
        for page, size in pages.items():
            yield Picture(path, page, names.new(f"{name}_{page:04d}", is_stem=False), size, deep)


class _Names:
    """Unique names: a second "a" becomes "a_2", or the next number that is no stem of another file."""

    def __init__(self, stems: set[str]) -> None:
        self.stems = stems
        self.candidates: dict[str, Iterator[str]] = {}

    def new(self, wanted: str, *, is_stem: bool = True) -> str:
        if not is_stem and wanted in self.stems:
            wanted = f"{wanted}_page"
        if wanted not in self.candidates:
            numbered = (f"{wanted}_{number}" for number in count(2))
            self.candidates[wanted] = chain([wanted], (name for name in numbered if name not in self.stems))
        return next(self.candidates[wanted])
