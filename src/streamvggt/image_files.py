"""Open image files: supported formats, images per file, and upright 8-bit pixels.

All user images are opened by `open_image`, which detects the format by content. H0×W0 pixels of an image.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import BinaryIO

import cv2
import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from streamvggt.file_kinds import what_it_is

FORMATS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "HEIF": ".heic",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "GIF": ".gif",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
}
"""Pillow names of the supported formats with their suffixes. Some other Pillow readers start external programs."""

READERS = tuple(name for name in FORMATS if name != "MPO")  # the reader of JPEG recognizes MPO
MAX_SIDE = 65_500  # pixels; limit of JPEG, the format of images in results
WHITES = [2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 31)]  # of common camera bit depths

MOTION_SUFFIXES = (".mjpg", ".mjpeg")
DEPTH_SUFFIXES = (".pgm", ".png", ".tif", ".tiff")
ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")
"""Formats whose images depend on earlier images: after a damaged image none can be decoded."""

pillow_heif.register_heif_opener()
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # failures raise an error with a clear message
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # Pillow raises an error at twice this limit


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open an image of one of `FORMATS` by its content, without decoding it. Use it in a `with` statement.

    Raises:
        OSError: If the file is missing, damaged or no image. Other Pillow exceptions are possible. `plain_reason`
            converts them to a message.
    """
    Image.init()  # Pillow does not load its readers if formats are given
    has_tga_name = isinstance(source, PurePath) and source.suffix.lower() == ".tga"  # TGA has no signature
    return Image.open(source, formats=(*READERS, "TGA") if has_tga_name else READERS)


def image_format(path: Path) -> str | None:
    """Return the name of the image format in `FORMATS` by content, or None for other files."""
    try:
        with open_image(path) as image:
            return image.format
    except Image.DecompressionBombError:
        return "PNG"  # an image that exceeds the size limit
    except Exception:  # Pillow's readers raise anything
        return None


def depth_maps(paths: Sequence[Path]) -> set[Path]:
    """Return the 16-bit grayscale images among at least as many others: the depth maps of an RGB-D camera."""
    found = {path for path in paths if path.suffix.lower() in DEPTH_SUFFIXES and _is_deep_gray(path)}
    return found if 2 * len(found) <= len(paths) else set()


def _is_deep_gray(path: Path) -> bool:
    try:
        with open_image(path) as image:
            return image.mode.startswith("I")
    except Exception:  # the iteration skips the file and reports the reason
        return False


def further_pictures(path: Path) -> str | None:
    """Return a message if other images follow the only image that Pillow reads, else None.

    JPEG and portable anymaps can be concatenated, for example as motion JPEG. JPEG files are searched only with its
    suffixes, because an additional JPEG in a photo is a gain map or preview.
    """
    try:
        with open_image(path) as image:
            if image.format == "PPM" and image.tile and image.tile[0].codec_name == "raw":
                bits = 1 if image.mode == "1" else 8 * len(image.getbands()) * (2 if image.mode.startswith("I") else 1)
                end = image.tile[0].offset + -(-image.width * bits // 8) * image.height
                goes_on = _starts_at(path, end, (b"P4", b"P5", b"P6"))
            else:
                is_motion = image.format == "JPEG" and path.suffix.lower() in MOTION_SUFFIXES
                goes_on = is_motion and b"\xff\xd9\xff\xd8\xff" in path.read_bytes()
    except Exception:  # the iteration skips the file and reports the reason
        return None
    return (
        "holds several pictures end to end, of which only the first is read; make images of them" if goes_on else None
    )


def _starts_at(path: Path, place: int, starts: tuple[bytes, ...]) -> bool:
    with open(path, "rb") as file:
        file.seek(place)
        return file.read(16).lstrip().startswith(starts)


def plain_reason(path: Path, error: Exception) -> str:
    """Convert an error of `open_image` or of decoding to a message."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image ({what_it_is(path)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels to be safe ({error})"
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"cannot be opened ({error.strerror})"
    if type(error) is ValueError and str(error):
        return str(error)
    return f"damaged or unsupported ({' '.join(str(error).split()) or type(error).__name__})"


def get_pages(image: Image.Image) -> dict[int, tuple[int, int] | None]:
    """Return the scene images of a file: index for `image.seek`, and upright width and height.

    The size is None if the image is damaged and its header cannot be read.

    Includes all images of an animation and all pages. Excludes thumbnails, masks, HDR gain maps, and the fallback
    image of an animated PNG.

    Raises:
        ValueError: As for `upright`, if the header is sufficient to detect the error.
    """
    _check_header(image)
    num_pages = getattr(image, "n_frames", 1)
    if num_pages == 1:
        return {0: exif_size(image)}
    if image.format in ANIMATIONS:
        first = 1 if image.info.get("default_image") else 0
        return dict.fromkeys(range(first, num_pages), exif_size(image))
    pages = {}
    first_look = image.size, image.mode
    has_gain_map = b"hdrgm" in _xmp(image)
    for page in range(num_pages):
        try:
            image.seek(page)
        except Exception:  # the iteration skips the image and reports the reason
            pages[page] = None
            continue
        if image.format == "TIFF":
            is_scene = not image.tag_v2.get(254, 0) & 0b101  # NewSubfileType: reduced copy, mask
        elif image.format == "MPO" and page:
            kind = image.mpinfo[0xB002][page]["Attribute"]["MPType"]
            is_twin = (image.size, image.mode) == first_look and not has_gain_map and b"gainmap" not in _xmp(image)
            is_scene = kind.startswith("Multi-Frame") or (is_twin and "Thumbnail" not in kind)
        else:
            is_scene = True
        if is_scene:
            pages[page] = exif_size(image)
    image.seek(0)
    return pages or {0: first_look[0]}


def exif_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height after EXIF orientation, from the header of an image that is not loaded."""
    orientation = 1
    if image.format != "TIFF":  # Pillow applies the orientation of TIFF, also to the size
        with suppress(Exception):  # the image may be valid despite damaged EXIF
            # Use the method of the base class, because the PNG method decodes the image to find EXIF after the pixels.
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded has more than 8 bits per channel and needs scaling."""
    return image.mode.startswith("I") or (
        image.format in ("PNG", "TIFF") and any(";16" in str(tile.args) for tile in image.tile)
    )


def get_white_level(image: Image.Image) -> int:
    """Return the maximum value of a deep image's bit depth, which can be less than the file's: 4095 for 12 bits."""
    return _white(_deep_pixels(image)[..., :3])


def exif_rgb(image: Image.Image) -> Image.Image:
    """Return upright 8-bit RGB pixels with transparency on white. Raises the errors of `upright`."""
    return upright(image)[0]


def upright(image: Image.Image, white: int = 0) -> tuple[Image.Image, np.ndarray | None]:
    """Decode an image to upright 8-bit RGB on white, and return the mask of its content.

    Args:
        image: Image of any mode that Pillow reads. EXIF orientation is applied.
        white: Minimum value of 16-bit images that maps to 255, see `get_white_level`.

    Returns:
        The image, and where its alpha is above 0, bool (H0, W0), or None if alpha is above 0 everywhere.

    Raises:
        ValueError: If the image is camera RAW, has a side longer than `MAX_SIDE`, or has floating-point pixels of
            unknown range.
        OSError: If the file is damaged. Other Pillow exceptions are possible.
    """
    _check_header(image)
    if is_deep(image):
        image = _to_8_bit(image, white)
    image.load()
    if is_turned(image):
        with suppress(Exception):  # damaged EXIF
            image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        valid = np.asarray(image.getchannel("A")) > 0
        on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return on_white, None if valid.all() else valid
    return image if image.mode == "RGB" else image.convert("RGB"), None


def is_turned(image: Image.Image) -> bool:
    """Whether the EXIF orientation turns or mirrors the pixels of a loaded image. Damaged EXIF does not."""
    with suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    return False


def _to_8_bit(image: Image.Image, white: int) -> Image.Image:
    """Scale a deep image to 8 bits and apply its EXIF orientation."""
    orientation = None
    if image.format != "TIFF":  # both readers apply the orientation of TIFF
        with suppress(Exception):  # damaged EXIF
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    pixels = _deep_pixels(image)
    color, alpha = pixels[..., :3], pixels[..., 3:]
    channels = [_scaled(color, max(white, _white(color)))]
    if alpha.size:
        channels.append(_scaled(alpha, _white(alpha)))
    scaled = Image.fromarray(np.dstack(channels).squeeze())
    if orientation is not None:
        scaled.getexif()[ExifTags.Base.Orientation] = orientation
    return scaled


def _deep_pixels(image: Image.Image) -> np.ndarray:
    """Return the samples of a deep image that is not loaded: gray, RGB or RGBA. (H0, W0, 1 | 3 | 4)"""
    if image.mode.startswith("I"):
        return np.asarray(image)[..., None]
    image.fp.seek(0)  # Pillow keeps only 8 bits of colors
    content = np.frombuffer(image.fp.read(), np.uint8)
    page = image.tell()
    is_read, pages = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, None, (page, page + 1))
    if not is_read or pages[0].ndim != 3:
        raise ValueError("damaged or unsupported (16 bits per channel)")
    return pages[0][..., [2, 1, 0, 3][: pages[0].shape[2]]]  # OpenCV has BGR


def _white(values: np.ndarray) -> int:
    brightest = int(values.max())
    return next((white for white in WHITES if white >= brightest), brightest)


def _scaled(values: np.ndarray, white: int) -> np.ndarray:
    """Scale 0…white to 0…255, uint8, with a lookup table of at most 16 bits."""
    if white > 65535:
        return np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8)
    return np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)[values.clip(0, white)]


def _check_header(image: Image.Image) -> None:
    if _is_raw(image):
        raise ValueError("a camera RAW image, which cannot be read; convert it to JPEG")
    if max(image.size) > MAX_SIDE:
        width, height = image.size
        raise ValueError(f"size: expected sides up to {MAX_SIDE} pixels, got {width}×{height}. Resize the image.")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bit")


def _is_raw(image: Image.Image) -> bool:
    """Whether the image is camera RAW: a TIFF file whose first image is a thumbnail or mosaic."""
    if image.format != "TIFF":
        return False
    tags = image.tag_v2
    dng_version, photometric_of_mosaics = 50706, (32803, 34892)
    return dng_version in tags or tags.get(262) in photometric_of_mosaics or (tags.get(254, 0) & 1 and 330 in tags)


def _xmp(image: Image.Image) -> bytes:
    xmp = image.info.get("xmp", b"")
    return xmp if isinstance(xmp, bytes) else str(xmp).encode()
