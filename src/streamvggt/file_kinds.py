"""Name the kind of a file by its suffix and first bytes, for messages about files that cannot be read as images."""

import codecs
import os
from pathlib import Path, PurePath

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


def unreadable_image(path: Path) -> str | None:
    """Return the name of an unsupported image format, by suffix or content, or None for all other files."""
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return "a camera RAW image, which cannot be read; convert it to JPEG"
    if suffix in OTHER_SUFFIXES:
        return f"{suffix} images cannot be read; convert it to JPEG or PNG"
    kind = _kind_by_start(_head(path))
    return f"{kind}, which cannot be read; convert it to JPEG" if kind and kind.endswith("image") else None


def no_regular_file(path: Path) -> str | None:
    """Return why a path with an image suffix is no readable file, or None for files and folders."""
    if path.is_file() or path.is_dir():
        return None
    return "a link to a missing file" if path.is_symlink() else "no regular file"


def what_it_is(path: Path) -> str:
    """Describe the content of a file that is neither a supported image nor a supported video."""
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
        # Not final: the head may end within a character.
        is_text = b"\0" not in head and bool(codecs.getincrementaldecoder("utf-8")().decode(head))
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        return "its format is not supported"
    return "its content is text"


def is_heif_start(head: bytes) -> bool:
    """Whether a file starts as HEIC, HEIF or AVIF images do. Videos and Canon RAW files use the same container."""
    return head[4:8] == b"ftyp" and head[8:12] in (
        *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
        *(b"mif1", b"mif2", b"msf1", b"miaf", b"avif", b"avis"),
    )


def printable(path: PurePath) -> str:
    """Return a file name for messages and records. Bytes that are not UTF-8 are replaced."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(512)


def _kind_by_start(head: bytes) -> str | None:
    if head[4:12] == b"ftypcrx " or (head[:2] in (b"II", b"MM") and head[8:10] == b"CR"):
        return "a camera RAW image"
    return next((kind for start, kind in STARTS.items() if head.startswith(start)), None)
