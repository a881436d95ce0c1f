"""Open image files: the formats that are read, the pictures in a file, and their upright 8-bit pixels.

All images of users come in through `open_image`, which goes by content and never by name. H0×W0 pixels of an image.
"""

import os
import warnings
from contextlib import suppress
from pathlib import Path, PurePath
from typing import BinaryIO

import cv2
import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

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
"""Pillow's names of the formats that are read, each with its usual suffix. Other readers of Pillow start programs."""

READERS = tuple(name for name in FORMATS if name != "MPO")  # the reader of JPEG recognizes MPO
MAX_SIDE = 65_500  # pixels; JPEG, in which results store images, has no longer sides
WHITES = [2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 31)]  # of the usual depths of cameras

RAW_TYPES = (
    "3fr, arw, cr2, cr3, crw, dcr, dng, erf, fff, gpr, iiq, k25, kdc, mef, mos, mrw, nef, nrw, orf, pef, raf, raw, "
    "rw2, rwl, sr2, srf, srw, x3f"
)
OTHER_TYPES = (
    "bpg, cur, dds, djvu, dpx, emf, eps, exr, fits, flif, hdp, hdr, icns, ico, jls, jxl, jxr, ktx, pcx, pict, psb, "
    "psd, qoi, ras, rgbe, sgi, svg, svgz, wdp, wmf, xbm, xcf, xpm"
)
RAW_SUFFIXES = frozenset(f".{name}" for name in RAW_TYPES.split(", "))
OTHER_SUFFIXES = frozenset(f".{name}" for name in OTHER_TYPES.split(", "))
STARTS = {
    b"\xff\x0a": "a JPEG XL image",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL image",
    b"FUJIFILMCCD-RAW": "a camera RAW image",
    b"IIRO": "a camera RAW image",
    b"IIRS": "a camera RAW image",
    b"MMOR": "a camera RAW image",
    b"IIU\x00": "a camera RAW image",
    b"FOVb": "a camera RAW image",
    b"8BPS": "a Photoshop image",
    b"v/1\x01": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance image",
    b"qoif": "a QOI image",
    b"%!PS": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "a PostScript file",
    b"%PDF": "a PDF file",
}

MOTION_SUFFIXES = (".mjpg", ".mjpeg")
ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")
"""Formats whose pictures are built on those before: after a damaged one, none can be decoded."""

pillow_heif.register_heif_opener()
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what fails is an error in our words
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # Pillow's limit is an error of twice that


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open an image of one of `FORMATS` by its content; nothing is decoded. Use it in a `with` statement.

    Raises:
        OSError and others of Pillow: the file is missing, damaged or no image; `plain_reason` says it in words.
    """
    Image.init()  # Pillow loads its readers late, and not at all where formats are named
    has_tga_name = isinstance(source, PurePath) and source.suffix.lower() == ".tga"  # TGA has no mark of its own
    return Image.open(source, formats=(*READERS, "TGA") if has_tga_name else READERS)


def image_format(path: Path) -> str | None:
    """Name of the image format in `FORMATS` by the file's content; None if it is no image that is read."""
    try:
        with open_image(path) as image:
            return image.format
    except Image.DecompressionBombError:
        return "PNG"  # an image, if a monstrous one
    except Exception:  # Pillow's readers raise anything
        return None


def unreadable_image(path: Path) -> str | None:
    """What an image file of a format that is not read is, by suffix or content; None for all other files."""
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return "a camera RAW image, which cannot be read; convert it to JPEG"
    if suffix in OTHER_SUFFIXES:
        return f"{suffix} images cannot be read; convert it to JPEG or PNG"
    kind = _kind_by_start(_head(path))
    return f"{kind}, which cannot be read; convert it to JPEG" if kind and kind.endswith("image") else None


def further_pictures(path: Path) -> str | None:
    """Say that an image file goes on after its only picture with others, which Pillow does not read; else None.

    JPEG and portable anymaps can be joined end to end, as cameras do in motion JPEG. Of JPEG files only those with its
    suffixes are searched: in photos, another JPEG behind the first is a gain map or preview.
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
    except Exception:  # it is skipped, and explained, when its turn comes
        return None
    return (
        "holds several pictures end to end, of which only the first is read; make images of them" if goes_on else None
    )


def _starts_at(path: Path, place: int, starts: tuple[bytes, ...]) -> bool:
    with open(path, "rb") as file:
        file.seek(place)
        return file.read(16).lstrip().startswith(starts)


def no_regular_file(path: Path) -> str | None:
    """Why something with the name of an image is no file that can be read; None for files and folders."""
    if path.is_file() or path.is_dir():
        return None
    return "a link to a file that is not there" if path.is_symlink() else "no regular file"


def what_it_is(path: Path) -> str:
    """What a file that is neither an image nor a video that is read seems to be, in words."""
    try:
        head = _head(path)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    if not head:
        return "it is empty"
    if kind := _kind_by_start(head):
        return f"it is {kind}, which cannot be read"
    if is_heif_start(head):
        return "it is a damaged HEIC or AVIF image"
    try:
        is_text = b"\0" not in head and bool(head[:-4].decode())
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        return "its content is of no kind that can be read"
    return "its content is text"


def is_heif_start(head: bytes) -> bool:
    """Whether a file begins as HEIC, HEIF or AVIF images do; videos and Canon's RAW share their container."""
    return head[4:8] == b"ftyp" and head[8:12] in (
        *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
        *(b"mif1", b"mif2", b"msf1", b"miaf", b"avif", b"avis"),
    )


def plain_reason(path: Path, error: Exception) -> str:
    """Why an image could not be read, in words; errors of `open_image` and of decoding."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image ({what_it_is(path)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels to be safe ({error})"
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"cannot be opened ({error.strerror})"
    if type(error) is ValueError and str(error):
        return str(error)
    return f"damaged or unsupported ({' '.join(str(error).split()) or type(error).__name__})"


def printable(path: PurePath) -> str:
    """A file's name for people and records: bytes that are no UTF-8 are replaced."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def pages_of(image: Image.Image) -> dict[int, tuple[int, int] | None]:
    """Pictures of the scene in a file: numbers for `image.seek`, each with its upright width and height.

    The size is None where the picture is damaged so that even its header cannot be reached.

    All pictures of an animation and all pages count, but no thumbnails, masks and HDR gain maps, nor the still that
    an animated PNG shows where animations are not supported.

    Raises:
        ValueError: as for `upright`, as far as the header tells.
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
        except Exception:  # skipped, and explained, when its turn comes
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
    """Width and height once EXIF orientation is applied, from the header of an image not yet loaded."""
    orientation = 1
    if image.format != "TIFF":  # Pillow turns TIFF by itself, its size included
        with suppress(Exception):  # damaged EXIF: the picture may still be fine
            # The base class's method: the one for PNG decodes the whole image in search of EXIF behind the pixels.
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size


def is_deep(image: Image.Image) -> bool:
    """Whether an image not yet loaded stores more than 8 bits per channel that have to be scaled here."""
    return image.mode.startswith("I") or (
        image.format in ("PNG", "TIFF") and any(";16" in str(tile.args) for tile in image.tile)
    )


def white_of(image: Image.Image) -> int:
    """Largest value of the depth a deep image uses, which may be less than that of its file: 4095 for 12 bits."""
    return _white(_deep_pixels(image)[..., :3])


def exif_rgb(image: Image.Image) -> Image.Image:
    """The pixels upright, 8-bit RGB, transparency on white; raises like `upright`."""
    return upright(image)[0]


def upright(image: Image.Image, white: int = 0) -> tuple[Image.Image, np.ndarray | None]:
    """Decode an image to upright 8-bit RGB on white, and find its pixels with content.

    Args:
        image: of any mode that Pillow reads; EXIF orientation is applied.
        white: of 16-bit images, the value that becomes 255, at least; see `white_of`.

    Returns:
        The image, and where its alpha is above 0, bool (H0, W0); None instead if that is everywhere.

    Raises:
        ValueError: a camera RAW image, a side longer than `MAX_SIDE`, or floating-point pixels, whose range nothing
            tells.
        OSError and others of Pillow: the file is damaged.
    """
    _check_header(image)
    if is_deep(image):
        image = _to_8_bit(image, white)
    image.load()
    with suppress(Exception):  # damaged EXIF
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        valid = np.asarray(image.getchannel("A")) > 0
        on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return on_white, None if valid.all() else valid
    return image.convert("RGB"), None


def _to_8_bit(image: Image.Image, white: int) -> Image.Image:
    """A deep image scaled to 8 bits, with its EXIF orientation."""
    orientation = None
    if image.format != "TIFF":  # which both readers turn by themselves
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
    """Samples of a deep image not yet loaded: grey, RGB or RGBA. (H0, W0, 1 | 3 | 4)"""
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
    """0…white to 0…255, uint8, by a table as large as 16 bits need at most."""
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
    """Camera RAW files are TIFF files whose first picture is a thumbnail or mosaic."""
    if image.format != "TIFF":
        return False
    tags = image.tag_v2
    dng_version, photometric_of_mosaics = 50706, (32803, 34892)
    return dng_version in tags or tags.get(262) in photometric_of_mosaics or (tags.get(254, 0) & 1 and 330 in tags)


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(512)


def _kind_by_start(head: bytes) -> str | None:
    if head[4:12] == b"ftypcrx " or (head[:2] in (b"II", b"MM") and head[8:10] == b"CR"):
        return "a camera RAW image"
    return next((kind for start, kind in STARTS.items() if head.startswith(start)), None)


def _xmp(image: Image.Image) -> bytes:
    xmp = image.info.get("xmp", b"")
    return xmp if isinstance(xmp, bytes) else str(xmp).encode()
