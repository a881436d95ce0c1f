"""Select image files: by folder, glob pattern or list, in natural order."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from streamvggt.file_kinds import no_regular_file, printable, unreadable_image
from streamvggt.image_files import MOTION_SUFFIXES, depth_maps, further_pictures, image_format
from streamvggt.natural_order import natural_key

IMAGE_TYPES = (
    "avif, bmp, gif, heic, heif, hif, j2k, jfif, jp2, jpe, jpeg, jpg, mpo, pbm, pgm, png, pnm, ppm, tga, tif, "
    "tiff, webp"
)
VIDEO_TYPES = "3gp, avi, flv, m2ts, m4v, mkv, mov, mp4, mpeg, mpg, mts, ogv, ts, webm, wmv"
IMAGE_EXTENSIONS = frozenset(f".{name}" for name in IMAGE_TYPES.split(", "))
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in VIDEO_TYPES.split(", "))
JOINABLE = (".pbm", ".pgm", ".pnm", ".ppm", *MOTION_SUFFIXES)


@dataclass(frozen=True)
class ImageList:
    """Image files in order, and names and reasons of the image and video files that are ignored."""

    paths: list[Path]
    left_out: list[tuple[str, str]]


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
    maps = depth_maps(images)
    reason = "a 16-bit grayscale image among other images, probably a depth map; give a list of files to use it"
    left_out += [(printable(path), reason) for path in images if path in maps]
    images = [path for path in images if path not in maps]
    return ImageList(images, left_out + further_in(images))


def further_in(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the files of which only the first image is read, with the reason."""
    joinable = [
        path for path in paths if path.suffix.lower() in JOINABLE or path.suffix.lower() not in IMAGE_EXTENSIONS
    ]
    return [(printable(path), reason) for path in joinable if (reason := further_pictures(path))]


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
        message += f"; it contains videos, name one of them: {_summarize(videos)}"
    elif found.left_out:
        message += "; {} is {}".format(*found.left_out[0]) + and_more(len(found.left_out) - 1, "files")
    elif others:
        message += "; it holds " + ", ".join(f"{count} {extension}" for extension, count in others.most_common(3))
    raise ValueError(message)


def images_matching(pattern: str) -> ImageList:
    """Find images by a glob pattern. Brackets in the name of an existing folder are literal."""
    paths = _matching(_with_plain_folders(pattern))
    found = _sorted_out(paths)
    if not paths:
        raise FileNotFoundError(f"No file matches {pattern}")
    if not found.paths:
        raise ValueError(f"No image ({IMAGE_TYPES}) matches {pattern}; it matches {_summarize(_natural_sorted(paths))}")
    return found


def _matching(pattern: Path) -> list[Path]:
    """Match as `glob.glob` with `recursive=True`, but search each folder once, because links can form loops."""
    if "**" not in pattern.parts:
        return [Path(match) for match in glob.glob(str(pattern))]
    place = pattern.parts.index("**")
    root, rest = Path(*pattern.parts[:place]), Path(*(pattern.parts[place + 1 :] or "*"))
    folders = chain.from_iterable(_folders_under(match) for match in glob.glob(str(root)))
    found = chain.from_iterable(_matching(Path(glob.escape(str(folder)), rest)) for folder in folders)
    return list({(os.path.realpath(path.parent), path.name): path for path in found}.values())


def _folders_under(root: str) -> Iterator[Path]:
    """Yield a folder and all visible folders in it, also linked ones, each once."""
    known = set()
    for folder, names, _ in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in known:
            names.clear()
            continue
        known.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield Path(folder)


def _with_plain_folders(pattern: str) -> Path:
    folder = escaped = Path()
    for part in Path(pattern).parts:
        folder /= part
        escaped /= glob.escape(part) if folder.exists() else part
    return escaped


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


def and_more(number: int, what: str) -> str:
    return f" (and {number} more {what})" if number else ""
