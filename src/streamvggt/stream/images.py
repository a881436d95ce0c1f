"""Read frames from image files: selection, order and names."""

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count, groupby, islice
from pathlib import Path

from streamvggt.frame import Frame
from streamvggt.image_files import (
    ANIMATIONS,
    MOTION_SUFFIXES,
    further_pictures,
    image_format,
    is_deep,
    no_regular_file,
    open_image,
    pages_of,
    plain_reason,
    printable,
    unreadable_image,
    white_of,
)
from streamvggt.names import storable
from streamvggt.natural_order import natural_key, stem
from streamvggt.stream.preprocess import compute_placement, preprocess_image
from streamvggt.stream.source import FrameOptions, FrameSource

IMAGE_TYPES = (
    "avif, bmp, gif, heic, heif, hif, j2k, jfif, jp2, jpe, jpeg, jpg, mpo, pbm, pgm, png, pnm, ppm, tga, tif, "
    "tiff, webp"
)
VIDEO_TYPES = "3gp, avi, flv, m2ts, m4v, mkv, mov, mp4, mpeg, mpg, mts, ogv, ts, webm, wmv"
IMAGE_EXTENSIONS = frozenset(f".{name}" for name in IMAGE_TYPES.split(", "))
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in VIDEO_TYPES.split(", "))
JOINABLE = (".pbm", ".pgm", ".pnm", ".ppm", *MOTION_SUFFIXES)
NUM_WHITE = 5  # images that determine the bit depth of 16-bit files


@dataclass(frozen=True)
class ImageList:
    """Image files in order, and names and reasons of the image and video files that are ignored."""

    paths: list[Path]
    left_out: list[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """One image of an image file.

    Attributes:
        page: Index for `Image.seek`.
        size: Upright width and height in pixels. None if the file cannot be opened.
        is_deep: See `image_files.is_deep`.
    """

    path: Path
    page: int
    name: str
    size: tuple[int, int] | None
    is_deep: bool


class ImageSource(FrameSource):
    """Image files in the given order, padded with white to the largest image. Each image of a file is a frame."""

    kind = "images"

    def __init__(self, images: ImageList, options: FrameOptions) -> None:
        super().__init__(options)
        if options.fps is not None:
            raise ValueError("photos have no times for fps to choose by; use stride to take every n-th")
        if options.strict and images.left_out:
            name, reason = images.left_out[0]
            raise ValueError(f"{name}: {reason}" + _more(len(images.left_out) - 1, "files"))
        self.files = self.paths = images.paths
        self.left_out = images.left_out

    @cached_property
    def _pictures(self) -> dict[int, Picture]:
        """Return the selected images by frame index, from the file headers. Independent of the start index."""
        return dict(islice(enumerate(_pictures_of(self.paths)), None, self._end, self.options.stride))

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
        canvases = [compute_placement(size, **self.options.preprocess_options).canvas_size for size in sizes]
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
                    whites.append(white_of(image))
            except Exception:  # skipped, and explained, when its turn comes
                continue
        return max(whites)

    def __iter__(self) -> Iterator[Frame]:
        self.skipped[:] = [] if self.start else self.left_out
        chosen = [(index, picture) for index, picture in self._pictures.items() if index >= self.start]
        num_read = 0
        for path, group in groupby(chosen, key=lambda entry: entry[1].path):
            for frame in self._frames_of(path, list(group)):
                num_read += 1
                yield frame
        if chosen and not num_read and not self.start:  # otherwise earlier frames were read
            name, reason = self.skipped[len(self.left_out)]
            raise ValueError(f"none of {len(chosen)} images could be read; the first, {name}: {reason}")

    def _frames_of(self, path: Path, pictures: list[tuple[int, Picture]]) -> Iterator[Frame]:
        """Yield the frames of one file, opened once, because seeking in an animation decodes all earlier images."""
        try:
            file = open_image(path)
        except Exception as error:  # Pillow's readers raise anything, from SyntaxError to struct.error
            for _, picture in pictures:
                self._skip(picture, error)
            return
        with file:
            failure = None
            for index, picture in pictures:
                try:
                    if failure is not None:
                        raise failure
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
                except Exception as error:
                    self._skip(picture, error)
                    if file.format in ANIMATIONS:
                        failure = error
                    continue
                yield frame

    def _skip(self, picture: Picture, error: Exception) -> None:
        reason = plain_reason(picture.path, error)
        name = printable(picture.path) + (f", picture {picture.page + 1}" if picture.page else "")
        if self.options.strict:
            raise ValueError(f"{name}: {reason}") from error
        self.skipped.append((name, reason))


def _pictures_of(paths: Sequence[Path]) -> Iterator[Picture]:
    """Yield all images of image files. Reads the headers lazily."""
    stems = {storable(stem(path)) for path in paths}
    names = _Names(stems)
    for path in paths:
        try:
            with open_image(path) as image:
                deep = is_deep(image)
                pages = pages_of(image)
        except Exception:  # skipped, and explained, when its turn comes
            pages, deep = {0: None}, False
        name = names.new(storable(stem(path)))
        if len(pages) == 1:
            ((page, size),) = pages.items()
            yield Picture(path, page, name, size, deep)
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


def _is_visible(path: Path, extensions: frozenset[str]) -> bool:
    return path.suffix.lower() in extensions and not path.name.startswith(".") and path.is_file()


def _natural_sorted(paths: Sequence[Path]) -> list[Path]:
    return sorted(paths, key=natural_key)


def _sorted_out(paths: Sequence[Path]) -> ImageList:
    """Select the images among files, by suffix or content, and list the ignored images and videos."""
    images, left_out = [], []
    for path in _natural_sorted(paths):
        suffix = path.suffix.lower()
        if path.name.startswith("."):
            continue
        if not path.is_file():
            if suffix in IMAGE_EXTENSIONS and (reason := no_regular_file(path)):
                left_out.append((printable(path), reason))
            continue
        if suffix in IMAGE_EXTENSIONS:
            images.append(path)
        elif suffix in VIDEO_EXTENSIONS:
            left_out.append((printable(path), "a video; give it as the source itself"))
        elif reason := _unreadable(path):
            left_out.append((printable(path), reason))
        elif image_format(path):
            images.append(path)
    return ImageList(images, left_out + further_in(images))


def further_in(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the files of which only the first image is read, with the reason."""
    joinable = [
        path for path in paths if path.suffix.lower() in JOINABLE or path.suffix.lower() not in IMAGE_EXTENSIONS
    ]
    return [(printable(path), said) for path in joinable if (said := further_pictures(path))]


def _unreadable(path: Path) -> str | None:
    try:
        return unreadable_image(path)
    except OSError:  # no permission, so the type is unknown
        return None


def images_in_folder(folder: Path) -> ImageList:
    found = _sorted_out(list(folder.iterdir()))
    if found.paths:
        return found

    message = f"No images ({IMAGE_TYPES}) in folder {folder}"
    videos = _natural_sorted([path for path in folder.iterdir() if _is_visible(path, VIDEO_EXTENSIONS)])
    subfolders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    subfolders = [
        sub for sub in _natural_sorted(subfolders) if any(_is_visible(p, IMAGE_EXTENSIONS) for p in sub.iterdir())
    ]
    others = Counter(path.suffix.lower() for path in folder.iterdir() if path.is_file() and path.suffix)
    if subfolders:
        message += f"; its subfolders have some, name one of them: {_summarize(subfolders)}"
    if videos:
        message += f"; it holds videos, name one of them: {_summarize(videos)}"
    elif found.left_out:
        message += "; {} is {}".format(*found.left_out[0]) + _more(len(found.left_out) - 1, "files")
    elif others:
        message += "; it holds " + ", ".join(f"{count} {extension}" for extension, count in others.most_common(3))
    raise ValueError(message)


def images_matching(pattern: str) -> ImageList:
    """Find images by a glob pattern. Brackets in the name of an existing folder are literal."""
    paths = [Path(match) for match in glob.glob(_with_plain_folders(pattern), recursive=True)]
    found = _sorted_out(paths)
    if not paths:
        raise FileNotFoundError(f"No file matches {pattern}")
    if not found.paths:
        raise ValueError(f"No image ({IMAGE_TYPES}) matches {pattern}; it matches {_summarize(_natural_sorted(paths))}")
    return found


def _with_plain_folders(pattern: str) -> str:
    folder = escaped = Path()
    for part in Path(pattern).parts:
        folder /= part
        escaped /= glob.escape(part) if folder.exists() else part
    return str(escaped)


def find_images(source: Sequence[str | Path]) -> ImageList:
    paths = [Path(path).expanduser() for path in source]
    if not paths:
        raise ValueError("the list of images is empty")
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} listed images do not exist: {_summarize(missing)}")
    for path in paths:
        if not path.is_file() or path.suffix.lower() in VIDEO_EXTENSIONS:
            raise ValueError(f"a list must hold image files only; give {path} as the source itself")
    return ImageList(paths, further_in(paths))


def _summarize(paths: Sequence[Path]) -> str:
    return ", ".join(printable(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")


def _more(number: int, what: str) -> str:
    return f" (and {number} more {what})" if number else ""
