"""Frames of image files: which files, in what order, under what names."""

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path

from natsort import natsorted, ns
from PIL import Image, UnidentifiedImageError

from streamvggt.frame import Frame
from streamvggt.names import storable
from streamvggt.stream.preprocess import place, prepare, upright_size
from streamvggt.stream.source import FrameSource, Options

IMAGE_TYPES = "avif, bmp, gif, j2k, jfif, jp2, jpe, jpeg, jpg, mpo, pbm, pgm, png, pnm, ppm, tga, tif, tiff, webp"
VIDEO_TYPES = "3gp, avi, flv, m2ts, m4v, mkv, mov, mp4, mpeg, mpg, mts, ogv, ts, webm, wmv"
IMAGE_EXTENSIONS = frozenset(f".{name}" for name in IMAGE_TYPES.split(", "))
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in VIDEO_TYPES.split(", "))


class ImageSource(FrameSource):
    """Image files in the order given, padded with white to the largest of them."""

    kind = "images"

    def __init__(self, paths: list[Path], options: Options) -> None:
        super().__init__(options)
        if options.fps is not None:
            raise ValueError("photos have no times for fps to choose by; use stride to take every n-th")
        self.files = self.paths = paths
        self.names = _unique_names(paths)

    @property
    def _chosen(self) -> range:
        """Indices of the images to read; all frames of a run, wherever it starts."""
        return range(len(self.paths))[:: self.options.stride][: self.options.max_frames]

    @property
    def num_frames(self) -> int:
        return sum(index >= self.start for index in self._chosen)

    @cached_property
    def _canvas_size(self) -> tuple[int, int] | None:
        """The largest width and height of the chosen images, from their headers alone."""
        sizes = []
        for index in self._chosen:
            try:
                with Image.open(self.paths[index]) as image:
                    original_size = upright_size(image)
            except Exception:  # skipped, and explained, when its turn comes
                continue
            sizes.append(place(original_size, **self.options.preparation).canvas_size)
        return tuple(map(max, zip(*sizes, strict=True))) if sizes else None

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        indices = [index for index in self._chosen if index >= self.start]
        for index in indices:
            path = self.paths[index]
            try:
                with Image.open(path) as image:
                    frame = prepare(
                        image,
                        **self.options.preparation,
                        canvas_size=self._canvas_size,
                        index=index,
                        name=self.names[index],
                    )
            except Exception as error:  # Pillow's readers raise anything, from SyntaxError to struct.error
                reason = _plain_reason(error)
                if self.options.strict:
                    raise ValueError(f"{path}: {reason}") from error
                self.skipped.append((path.name, reason))
                continue
            yield frame
        if indices and len(self.skipped) == len(indices) and not self.start:  # else there were good ones before
            name, reason = self.skipped[0]
            raise ValueError(f"none of {len(indices)} images could be read; the first, {name}: {reason}")


def _plain_reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"too many pixels to be safe ({error})"
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"cannot be opened ({error.strerror})"
    return f"damaged or unsupported ({error or type(error).__name__})"


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """File stems as they can be stored; a second "a" becomes "a_2", or the next number that no other file bears."""
    stems = [storable(path.stem) for path in paths]
    known = set(stems)
    candidates = {stem: _numbered(stem, known) for stem in known}
    return [next(candidates[stem]) for stem in stems]


def _numbered(stem: str, stems: set[str]) -> Iterator[str]:
    yield stem
    for number in count(2):
        if (name := f"{stem}_{number}") not in stems:
            yield name


def _is_visible(path: Path, extensions: frozenset[str]) -> bool:
    return path.suffix.lower() in extensions and not path.name.startswith(".") and path.is_file()


def _natural(paths: Sequence[Path]) -> list[Path]:
    return natsorted(paths, key=str, alg=ns.PATH)


def images_in_folder(folder: Path) -> list[Path]:
    images = [path for path in folder.iterdir() if _is_visible(path, IMAGE_EXTENSIONS)]
    if images:
        return _natural(images)

    message = f"No images ({IMAGE_TYPES}) in folder {folder}"
    videos = _natural([path for path in folder.iterdir() if _is_visible(path, VIDEO_EXTENSIONS)])
    subfolders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    subfolders = [sub for sub in _natural(subfolders) if any(_is_visible(p, IMAGE_EXTENSIONS) for p in sub.iterdir())]
    others = Counter(path.suffix.lower() for path in folder.iterdir() if path.is_file() and path.suffix)
    if subfolders:
        message += f"; its subfolders have some, name one of them: {_few(subfolders)}"
    if videos:
        message += f"; it holds videos, name one of them: {_few(videos)}"
    elif others:
        message += "; it holds " + ", ".join(f"{count} {extension}" for extension, count in others.most_common(3))
    raise ValueError(message)


def images_matching(pattern: str) -> list[Path]:
    paths = [Path(match) for match in glob.glob(pattern, recursive=True)]
    images = [path for path in paths if _is_visible(path, IMAGE_EXTENSIONS)]
    if not paths:
        raise FileNotFoundError(f"No file matches {pattern}")
    if not images:
        raise ValueError(f"No image ({IMAGE_TYPES}) matches {pattern}; it matches {_few(_natural(paths))}")
    return _natural(images)


def listed_images(source: Sequence[str | Path]) -> list[Path]:
    paths = [Path(path).expanduser() for path in source]
    if not paths:
        raise ValueError("the list of images is empty")
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} listed images do not exist: {_few(missing)}")
    for path in paths:
        if not path.is_file() or path.suffix.lower() in VIDEO_EXTENSIONS:
            raise ValueError(f"a list must hold image files only; give {path} as the source itself")
    return paths


def _few(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (", …" if len(paths) > 3 else "")
