"""Validate uploads by content, size and number, and arrange them for `load_frames`.

File names are untrusted. They only become parts of new file names.
"""

import re
import shutil
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import av
from PIL import Image

from streamvggt.app.zips import check_directory
from streamvggt.file_kinds import unreadable_image, what_it_is
from streamvggt.image_files import FORMATS, image_format, open_image
from streamvggt.natural_order import natural_key
from streamvggt.stream.containers import FFMPEG_FORMATS, video_suffix
from streamvggt.stream.image_list import IMAGE_EXTENSIONS


@dataclass(frozen=True)
class UploadLimits:
    """Limits of one upload.

    Attributes:
        num_photos: Maximum number of photos per scene.
        total_bytes: Maximum total size of the unpacked files in bytes.
        pixels: Maximum number of pixels of a photo or a video frame.
        max_bytes_per_hour: Maximum upload size per user and hour in bytes.
    """

    num_photos: int = 500
    total_bytes: int = 1_000_000_000
    pixels: int = 120_000_000
    max_bytes_per_hour: int = 4_000_000_000


@dataclass(frozen=True)
class Upload:
    """A validated upload.

    Attributes:
        path: Folder of photos or video file for `load_frames`.
        kind: "images" or "video".
        left_out: Name and reason of unreadable images in zip archives.
    """

    path: Path
    kind: str
    left_out: tuple[str, ...] = ()


def take_uploads(paths: Sequence[str | Path], folder: Path, limits: UploadLimits | None = None) -> Upload:
    """Validate files and copy them to `folder`. Photos in zip archives are unpacked.

    Args:
        paths: Photos and zip archives of photos in any order, or one video.
        folder: Folder to create for these files only.
        limits: Upload limits. None selects the defaults.

    Raises:
        ValueError: If the files cannot be used. The message is for the user.
    """
    limits = limits or UploadLimits()
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("Nothing was uploaded: choose photos, a zip of photos, or one video.")
    if sum(path.stat().st_size for path in paths) > limits.total_bytes:
        raise ValueError(f"That is too much: all files together may have {_megabytes(limits.total_bytes)}.")

    folder.mkdir(parents=True)
    photos: list[tuple[str, Path]] = []  # name to sort by, checked file
    left_out: list[str] = []
    videos: list[Path] = []
    for number, path in enumerate(paths):
        if zipfile.is_zipfile(path) and image_format(path) is None:
            unpacked = folder.with_name(f"{folder.name}-zip-{number}")
            photos += unpack(path, unpacked, limits, left_out)
        elif reason := unreadable_image(path):
            raise ValueError(f"{path.name}: {reason}.")
        elif image_format(path) is not None:
            photos.append((path.name, path))
        elif video_suffix(path) is not None:
            videos.append(path)
        else:
            raise ValueError(f"{path.name} is neither a photo nor a video: {what_it_is(path)}.")
    if videos and (photos or len(videos) > 1):
        raise ValueError("Choose either photos or one video: several videos, or both, are not one scene.")
    if videos:
        check_video(videos[0], limits)
        target = folder / f"{_safe_stem(videos[0].name)}{video_suffix(videos[0])}"
        shutil.copyfile(videos[0], target)
        return Upload(target, "video")
    if len(photos) > limits.num_photos:
        raise ValueError(f"{len(photos)} photos are too many: at most {limits.num_photos} can be taken.")
    for number, (name, path) in enumerate(sorted(photos, key=lambda photo: natural_key(photo[0]))):
        check_photo(path, PurePosixPath(name).name, limits)
        suffix = FORMATS[image_format(path)]
        shutil.copyfile(path, folder / f"{number:04d}_{_safe_stem(name)}{suffix}")
    for unpacked in folder.parent.glob(f"{folder.name}-zip-*"):
        shutil.rmtree(unpacked)
    return Upload(folder, "images", tuple(left_out))


def unpack(archive: Path, folder: Path, limits: UploadLimits, left_out: list[str]) -> list[tuple[str, Path]]:
    """Unpack the photos of a zip archive to numbered files. Return original names and paths.

    Args:
        archive: The zip archive.
        folder: Output folder.
        limits: Upload limits.
        left_out: Receives names and reasons of unreadable images.

    Raises:
        ValueError: If the archive is damaged, encrypted, too large when unpacked, or has paths outside of it.
    """
    check_directory(archive, 4 * limits.num_photos)
    photos = []
    folder.mkdir(parents=True)
    left = limits.total_bytes
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            for member in members:
                _check_member(archive.name, member)
            if len(members) > 4 * limits.num_photos or sum(member.file_size for member in members) > left:
                raise ValueError(
                    f"{archive.name} unpacks to too much: at most {limits.num_photos} photos and "
                    f"{_megabytes(limits.total_bytes)} can be taken."
                )
            for number, member in enumerate(members):
                if PurePosixPath(member.filename).name.startswith(".") or member.filename.startswith("__MACOSX/"):
                    continue
                name = PurePosixPath(member.filename).name
                target = folder / f"{number:06d}{Path(name).suffix[:8]}"
                left -= _copy_limited(content, member, target, left, archive.name)
                reason = unreadable_image(target)
                if reason is None and image_format(target) is not None:
                    photos.append((member.filename, target))
                    continue
                if reason is None and Path(name).suffix.lower() in IMAGE_EXTENSIONS:
                    reason = what_it_is(target)
                if reason is not None:
                    left_out.append(f"{name}: {reason}")
                target.unlink()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"{archive.name} cannot be unpacked: it is damaged, or locked with a password.") from error
    if not photos:
        raise ValueError(f"{archive.name} contains no photos." + (f" {left_out[0]}." if left_out else ""))
    return photos


def _check_member(archive: str, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.filename) or is_link:
        raise ValueError(f"{archive} contains an unsafe path ({member.filename[:60]!r}); it was not opened.")


def _copy_limited(content: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, most: int, archive: str) -> int:
    """Unpack one file. The size in its header is not trusted."""
    size = 0
    with content.open(member) as source, open(target, "wb") as file:
        while piece := source.read(1 << 20):
            size += len(piece)
            if size > most:
                raise ValueError(f"{archive} unpacks to much more than it says; it was not opened.")
            file.write(piece)
    return size


def check_photo(path: Path, name: str, limits: UploadLimits) -> None:
    """Check the header of a photo without decoding it.

    Raises:
        ValueError: If the photo has too many pixels.
    """
    try:
        with open_image(path) as image:
            num_pixels = image.width * image.height
    except Image.DecompressionBombError:
        num_pixels = limits.pixels + 1
    if num_pixels > limits.pixels:
        raise ValueError(f"{name} has too many pixels: at most {limits.pixels / 1e6:.0f} million can be taken.")


def check_video(path: Path, limits: UploadLimits) -> None:
    """Check a file with a video signature.

    Raises:
        ValueError: If it has no video, or too many pixels.
    """
    try:
        with av.open(
            str(path), options={"protocol_whitelist": "file", "format_whitelist": FFMPEG_FORMATS}
        ) as container:
            sizes = [(stream.width, stream.height) for stream in container.streams.video]
    except av.FFmpegError as error:
        raise ValueError(f"{path.name} looks like a video but cannot be read: it is damaged or cut short.") from error
    if not sizes:
        raise ValueError(f"{path.name} contains no video, perhaps only sound.")
    if any(width * height > limits.pixels for width, height in sizes):
        raise ValueError(f"{path.name} has too many pixels: at most {limits.pixels / 1e6:.0f} million can be taken.")


def _safe_stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", PurePosixPath(name).stem)[:60].strip("_") or "file"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB"
